"""Keys of training samples."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """The key of a training sample: the number of its image, and the seed of its augmentation."""

    index: int
    seed: int
