"""A set of images to verify with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.core.shards import WHOLE, Shard

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class ImageSet:
    """Images in batches ``uint8 [N, H, W, 3]``, and the name, label and group of each image.

    `batches` are those of `shard`, names, labels and groups those of all images.
    """

    description: str
    batches: Iterable[npt.NDArray[np.uint8]]
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    groups: tuple[str, ...]
    shard: Shard = WHOLE
