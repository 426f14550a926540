"""How many images or payloads an engine is given at once."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.resolved import ResolvedTarget

_Item = TypeVar("_Item")

UNBOUND_BATCH = 4
"""For engines that take any batch.

Beyond it memory grows and speed does not: ``ccr-layer1``'s encoder at 224x224 and T=8 takes 127 MiB in ONNX
Runtime at batch 1, 250 at 4, 414 at 8, 1,395 at 32; of CPU time an image takes 193 ms at batch 1, 174 at 2,
163 at 4, 165 at 8 (OpenVINO: 139, 136, 137, 136).
"""


def batch_size(asked: int | None, built: Mapping[Stage, ResolvedTarget], stages: Collection[Stage]) -> int:
    """Return the batch for stages that run one after the other.

    Args:
        asked: what the user asked for; without it the most common batch of the engines' profiles.
        built: what each stage was last built for; a stage that was not built has no say.
        stages: those that will run.

    Raises:
        WrongUsageError: more was asked for than an engine takes.
    """
    profiles = {stage: built[stage].batch for stage in stages if stage in built}
    for stage, profile in profiles.items():
        if asked and profile and asked > profile.max:
            raise WrongUsageError(
                f"--batch {asked}: the {stage}'s engine takes at most {profile.max} at once: choose fewer"
            )
    usual = [profile.opt if profile else UNBOUND_BATCH for profile in profiles.values()]
    return asked or min(usual, default=UNBOUND_BATCH)


def in_batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Up to `size` items at once, in their order; none is taken before its batch is asked for."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
