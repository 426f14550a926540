"""How much the server takes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.payload import OVERHEAD_BYTES
from ccr_deploy.target import RtxTarget, TensorRtTarget

if TYPE_CHECKING:
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.target import Target

DEFAULT_BATCH = 8
_WAITING_BATCHES = 8
_ENVELOPE_BYTES = 2**16
_JSON_CHARACTERS = 5
"""What a byte takes in JSON at most: three digits, a comma and a blank."""
_LENGTH_BYTES = 4
"""What stands in front of each element of a BYTES tensor."""


@dataclass(frozen=True)
class Limits:
    """The most that is taken on: images in one run of an engine and in one request, images that wait.

    A request beyond `max_batch` is refused for good, one beyond `max_waiting` for now.
    """

    max_batch: int
    max_waiting: int

    @classmethod
    def of(cls, target: Target, max_batch: int | None = None, max_waiting: int | None = None) -> Limits:
        """The limits that were chosen, or else those that fit the target.

        Raises:
            WrongUsageError: fewer images may wait than one request may bring.
        """
        batch = max_batch or default_batch(target)
        waiting = max_waiting or _WAITING_BATCHES * batch
        if waiting < batch:
            raise WrongUsageError(
                f"{waiting} images may wait, fewer than the {batch} of one request: raise --max-waiting "
                "or lower --max-batch"
            )
        return cls(batch, waiting)

    def message_bytes(self, bundle: Bundle) -> int:
        """The largest gRPC message: the largest request's tensors with what stands around them."""
        return self.max_batch * _row_bytes(bundle) + _ENVELOPE_BYTES

    def body_bytes(self, bundle: Bundle) -> int:
        """The largest HTTP body: the largest request as JSON."""
        return self.max_batch * _row_bytes(bundle) * _JSON_CHARACTERS + _ENVELOPE_BYTES


def default_batch(target: Target) -> int:
    """The largest batch that both engines were built for, where they were built for certain ones."""
    if isinstance(target, TensorRtTarget | RtxTarget):
        return min(target.batch.encoder.max, target.batch.classifier.max)
    return DEFAULT_BATCH


def _row_bytes(bundle: Bundle) -> int:
    contract = bundle.manifest.contract
    image_bytes = contract.image_height * contract.image_width * 3
    return max(image_bytes, contract.code_bytes + OVERHEAD_BYTES + _LENGTH_BYTES)
