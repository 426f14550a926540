"""Errors of requests, with their HTTP and gRPC statuses."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from grpc import StatusCode

from ccr_deploy.serving import kserve_sdk as kserve
from ccr_deploy.serving.metrics import REFUSED


class BusyError(Exception):
    """Too many images are waiting: the client may try again."""


class TooLargeError(Exception):
    """A body is larger than the limit for one request."""


@dataclass(frozen=True)
class Refusal:
    """The statuses of one kind of error, and the reason that the metric `ccr_deploy_refused` counts."""

    reason: str
    http: HTTPStatus
    grpc: StatusCode


REFUSALS: dict[type[Exception], Refusal] = {
    kserve.InvalidInput: Refusal("invalid", HTTPStatus.BAD_REQUEST, StatusCode.INVALID_ARGUMENT),
    TooLargeError: Refusal("too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, StatusCode.RESOURCE_EXHAUSTED),
    kserve.ModelNotFound: Refusal("unknown model", HTTPStatus.NOT_FOUND, StatusCode.NOT_FOUND),
    kserve.ModelNotReady: Refusal("not ready", HTTPStatus.SERVICE_UNAVAILABLE, StatusCode.UNAVAILABLE),
    kserve.ServerNotReady: Refusal("not ready", HTTPStatus.SERVICE_UNAVAILABLE, StatusCode.UNAVAILABLE),
    BusyError: Refusal("busy", HTTPStatus.SERVICE_UNAVAILABLE, StatusCode.UNAVAILABLE),
    kserve.InferenceError: Refusal("failed", HTTPStatus.INTERNAL_SERVER_ERROR, StatusCode.INTERNAL),
}
"""The errors that requests raise. Any other error is converted to an `InferenceError`."""


def refusal(error: Exception, model_name: str = "") -> Refusal:
    """Return the statuses of an error, and count it for the model if a model of that name exists."""
    found = REFUSALS.get(type(error), REFUSALS[kserve.InferenceError])
    REFUSED.labels("" if isinstance(error, kserve.ModelNotFound) else model_name, found.reason).inc()
    return found
