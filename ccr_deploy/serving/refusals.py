"""Why a request is not answered, as HTTP and gRPC say it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from grpc import StatusCode

from ccr_deploy.serving import kserve_sdk as kserve
from ccr_deploy.serving.measures import REFUSED


class BusyError(Exception):
    """As many images wait as may: the client may try again."""


class TooLargeError(Exception):
    """A body is larger than the largest request."""


@dataclass(frozen=True)
class Refusal:
    """One kind of error in both protocols, with the reason that metrics count it under."""

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
"""By what is raised. What is raised elsewhere in a request becomes an `InferenceError`."""


def refusal(error: Exception, model_name: str = "") -> Refusal:
    """How an error is answered; it is counted for the model, unless there is none of that name."""
    found = REFUSALS.get(type(error), REFUSALS[kserve.InferenceError])
    REFUSED.labels("" if isinstance(error, kserve.ModelNotFound) else model_name, found.reason).inc()
    return found
