"""How much the server takes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.codec.payload import OVERHEAD_BYTES
from ccr_deploy.core.control_groups import memory_limit
from ccr_deploy.errors import EngineError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.targets.schema import Target

DEFAULT_BATCH = 8
_WAITING_BATCHES = 8
_MIB = 2**20
_REQUESTS_BYTES = 64 * _MIB
"""Room for requests and answers on their way: 40 MiB were seen with eight clients, at 224x224."""
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
    memory: int | None = None
    """Bytes that the whole process may hold; None if there is no limit."""

    @classmethod
    def of(cls, target: Target, max_batch: int | None = None, max_waiting: int | None = None) -> Limits:
        """The limits that were chosen, or else those that fit the target.

        Raises:
            WrongUsageError: fewer images may wait than one request may bring.
        """
        built = target.batch  # None where engines take any batch
        batch = max_batch or (min(built.encoder.max, built.classifier.max) if built else DEFAULT_BATCH)
        waiting = max_waiting or _WAITING_BATCHES * batch
        if waiting < batch:
            raise WrongUsageError(
                f"{waiting} images may wait, fewer than the {batch} of one request: raise --max-waiting "
                "or lower --max-batch"
            )
        return cls(batch, waiting, memory_limit())

    def message_bytes(self, bundle: Bundle) -> int:
        """The largest gRPC message: the largest request's tensors with what stands around them."""
        return self.max_batch * _row_bytes(bundle) + _ENVELOPE_BYTES

    def body_bytes(self, bundle: Bundle) -> int:
        """The largest HTTP body: the largest request as JSON."""
        return self.max_batch * _row_bytes(bundle) * _JSON_CHARACTERS + _ENVELOPE_BYTES


def check_growth(model: str, held: Sequence[int], limits: Limits) -> None:
    """Check that a warm-up's next batch size has room: out of memory, a process is killed without a word.

    The next size is taken to add as much as those so far did on average: OpenVINO keeps weights and buffers
    for every shape, ONNX Runtime's arena grows now and then.

    Args:
        model: The model that is warmed up.
        held: The bytes that the process held after each batch size so far, from 1 on.
        limits: The batch to warm up to, and the limit of memory.

    Raises:
        EngineError: the next size, and then requests, may take more than the limit.
    """
    step = (held[-1] - held[0]) // max(1, len(held) - 1)
    missing = limits.max_batch - len(held)
    if limits.memory is None or held[-1] + min(missing, 1) * step + _REQUESTS_BYTES <= limits.memory:
        return
    raise EngineError(
        f"{model}: {held[-1] // _MIB} MiB are in use after batches of {len(held)}, and the memory limit is "
        f"{limits.memory // _MIB} MiB. Batches of {limits.max_batch} and the requests that wait need about "
        f"{(held[-1] + missing * step + _REQUESTS_BYTES) // _MIB} MiB: raise the limit, or serve with a "
        "smaller --max-batch"
    )


def _row_bytes(bundle: Bundle) -> int:
    contract = bundle.manifest.contract
    image_bytes = contract.image_height * contract.image_width * 3
    return max(image_bytes, contract.code_bytes + OVERHEAD_BYTES + _LENGTH_BYTES)
