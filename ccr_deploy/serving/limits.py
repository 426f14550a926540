"""Limits of the server: batch size, waiting images, memory, request size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.codec.payload import OVERHEAD_BYTES
from ccr_deploy.core.control_groups import memory_limit_bytes
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import EngineError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.targets.schema import Target

DEFAULT_BATCH = 8
"""The maximum batch if the target sets none: larger ones are not faster on a CPU, see `workflow.batches`."""
_WAITING_BATCHES = 8
"""Full batches that may wait; further requests are rejected at once instead of being answered late."""
_MIB = 2**20
_REQUESTS_BYTES = 64 * _MIB
"""Memory for requests and responses in flight: 40 MiB were measured with eight clients, at 224x224."""
_ENVELOPE_BYTES = 2**16
_JSON_CHARACTERS = 5
"""The longest form of a byte in JSON: three digits, a comma and a space."""
_LENGTH_BYTES = 4
"""The length prefix of each element of a BYTES tensor."""


@dataclass(frozen=True)
class Limits:
    """Limits on images and memory.

    Attributes:
        max_batch: images in one run of an engine, and in one request. A larger request is invalid.
        max_waiting: images that may wait for an engine. Beyond it, clients are asked to try again later.
        memory: bytes of memory for the whole process; None if there is no limit.
    """

    max_batch: int
    max_waiting: int
    memory: int | None = None

    @classmethod
    def of(cls, target: Target, max_batch: int | None = None, max_waiting: int | None = None) -> Limits:
        """Return the limits; those that are not given come from the target.

        Args:
            target: the target of the engines, whose batch sizes limit `max_batch`.
            max_batch: images in one run and in one request.
            max_waiting: images that may wait for an engine.

        Raises:
            WrongUsageError: if `max_waiting` is smaller than `max_batch`.
        """
        sizes = target.batch  # None if engines accept any batch
        built = min(sizes.of(stage).largest for stage in CHAIN_STAGES) if sizes else DEFAULT_BATCH
        batch = max_batch or built
        waiting = max_waiting or _WAITING_BATCHES * batch
        if waiting < batch:
            raise WrongUsageError(
                f"--max-waiting {waiting} is smaller than --max-batch {batch}: raise --max-waiting "
                "or lower --max-batch"
            )
        return cls(batch, waiting, memory_limit_bytes())

    def message_bytes(self, bundle: Bundle) -> int:
        """Return the size of the largest gRPC message: the largest request's tensors and their envelope."""
        return self.max_batch * _row_bytes(bundle) + _ENVELOPE_BYTES

    def body_bytes(self, bundle: Bundle) -> int:
        """Return the size of the largest HTTP body: the largest request as JSON."""
        return self.max_batch * _row_bytes(bundle) * _JSON_CHARACTERS + _ENVELOPE_BYTES


def check_growth(model: str, held: Sequence[int], limits: Limits) -> None:
    """Check that the next batch size of a warm-up fits into memory.

    Beyond the limit the kernel kills the process without a message. The estimate for the next size is the
    average growth so far: OpenVINO keeps weights and buffers for every shape, ONNX Runtime's arena grows in
    steps.

    Args:
        model: the name of the model that is warmed up.
        held: the process's memory in bytes after each batch size so far, starting with 1.
        limits: the batch size to warm up to, and the memory limit.

    Raises:
        EngineError: if the next size, and then requests, may need more memory than the limit.
    """
    step = (held[-1] - held[0]) // max(1, len(held) - 1)
    missing = limits.max_batch - len(held)
    if limits.memory is None or held[-1] + min(missing, 1) * step + _REQUESTS_BYTES <= limits.memory:
        return
    raise EngineError(
        f"{model}: {held[-1] // _MIB} MiB are in use after warming up batch {len(held)}, and the memory "
        f"limit is {limits.memory // _MIB} MiB; batches of {limits.max_batch} and waiting requests need "
        f"about {(held[-1] + missing * step + _REQUESTS_BYTES) // _MIB} MiB: raise the memory limit, or use "
        "a smaller --max-batch"
    )


def _row_bytes(bundle: Bundle) -> int:
    contract = bundle.manifest.contract
    image_bytes = contract.image_height * contract.image_width * 3
    return max(image_bytes, contract.code_bytes + OVERHEAD_BYTES + _LENGTH_BYTES)
