"""The optimization profiles of an engine, and the parts that a batch is run in.

A profile of one size accepts only this size: a smaller batch is padded. The profile of a dynamic engine
accepts every size from 1 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Profile:
    """An optimization profile: its number in the engine, and the batch sizes that it accepts."""

    index: int
    smallest: int
    largest: int


@dataclass(frozen=True)
class Part:
    """A part of a batch: `size` items from index `start` on, and the profile that runs it."""

    start: int
    size: int
    profile: Profile

    @property
    def padded_size(self) -> int:
        """The batch size that the engine runs. The outputs of the rows beyond `size` are not returned."""
        return max(self.size, self.profile.smallest)

    @property
    def items(self) -> slice:
        """The part's items in the whole batch."""
        return slice(self.start, self.start + self.size)


def profiles_of(engine: Any, tensor: str) -> tuple[Profile, ...]:  # noqa: ANN401 -- the library has no types
    """Return the profiles of an engine, those of the smallest batches first.

    Args:
        engine: TensorRT's engine.
        tensor: the name of an input.
    """
    profiles = []
    for index in range(engine.num_optimization_profiles):
        smallest, _, largest = engine.get_tensor_profile_shape(tensor, index)
        profiles.append(Profile(index, int(smallest[0]), int(largest[0])))
    return tuple(sorted(profiles, key=lambda profile: profile.largest))


def parts_of(batch: int, profiles: Sequence[Profile]) -> list[Part]:
    """Divide a batch: the largest profile as often as it is full, and for the rest the smallest that fits.

    Args:
        batch: the number of items.
        profiles: the profiles, those of the smallest batches first.
    """
    parts: list[Part] = []
    for start in range(0, batch, profiles[-1].largest):
        size = min(profiles[-1].largest, batch - start)
        fitting = next(profile for profile in profiles if profile.largest >= size)
        parts.append(Part(start, size, fitting))
    return parts
