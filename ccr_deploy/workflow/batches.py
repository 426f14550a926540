"""Batch sizes of the commands that run engines on files."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ccr_deploy.backends.options import Batch
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.resolved import ResolvedTarget

_Item = TypeVar("_Item")

UNBOUND_BATCH = 4
"""Batch for engines without batch profiles.

Larger batches use more memory without being faster. Measured with the encoder of ``ccr-layer1`` at 224x224
and T=8 in ONNX Runtime: 127 MiB at batch 1, 250 at 4, 414 at 8 and 1,395 at 32; CPU time per image 193 ms at
batch 1, 174 at 2, 163 at 4 and 165 at 8 (OpenVINO: 139, 136, 137, 136).
"""

USUAL_BATCH = 8
"""Upper limit of the default batch for engines with batch profiles.

`verify` runs its reference, often on a CPU, at the same batch, and a CPU needs gigabytes for a larger one.
"""


def batch_size(asked: int | None, built: Mapping[Stage, ResolvedTarget], stages: Collection[Stage]) -> int:
    """Return the batch size for stages that run one after the other.

    Args:
        asked: batch size that the user asked for; None for one that every engine takes, up to `USUAL_BATCH`.
        built: resolved target that each stage was last built for; stages that were not built are ignored.
        stages: stages that will run.

    Raises:
        WrongUsageError: if `asked` is larger than an engine's maximum batch.
    """
    batches = {stage: built[stage].batch for stage in stages if stage in built}
    for stage, batch in batches.items():
        if asked and batch and asked > batch.largest:
            raise WrongUsageError(
                f"--batch {asked}: the maximum batch of the {stage} engine is {batch.largest}: "
                "use a smaller --batch"
            )
    usual = [_usual(batch) if batch else UNBOUND_BATCH for batch in batches.values()]
    return asked or min(usual, default=UNBOUND_BATCH)


def _usual(batch: Batch) -> int:
    """Return the largest size up to `USUAL_BATCH`, so that no full batch is padded."""
    if batch.dynamic:
        return min(batch.largest, USUAL_BATCH)
    return max((size for size in batch.sizes if size <= USUAL_BATCH), default=batch.smallest)


def in_batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of up to `size` items in order; items are taken only when their batch is requested."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
