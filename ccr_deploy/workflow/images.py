"""Image folders and sample images as batches for engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ccr_deploy.core.printable import printable
from ccr_deploy.core.shards import WHOLE, Shard
from ccr_deploy.data.images import ImageItem, list_images
from ccr_deploy.errors import CalibrationError, ImageError
from ccr_deploy.verification.answers import BATCH
from ccr_deploy.verification.image_set import ImageSet
from ccr_deploy.workflow.batches import in_batches
from ccr_deploy.workflow.decoding import decoded
from ccr_deploy.workflow.sources import contract_image

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle

_Item = TypeVar("_Item")

MAX_UNREADABLE_PERCENT = 5
"""Above this, the images that cannot be decoded are an error: the folder is probably the wrong one."""


def image_set(
    bundle: Bundle, folder: Path | None, samples: int | None = None, shard: Shard = WHOLE
) -> ImageSet:
    """Return the images of a folder, or the sample images of the bundle.

    Args:
        bundle: bundle whose classes and image size are meant.
        folder: folder of images; sub-folders are classes. None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for all.
        shard: the part of the batches that is to be read.

    Raises:
        ImageError: if there are no images; while batches are read, if an image cannot be used.
    """
    items, description = _items(bundle, folder, samples)
    chosen = chain.from_iterable(shard.chosen(in_batches(items, BATCH)))
    images = decoded((item.path for item in chosen), bundle.manifest.contract)
    return ImageSet(
        description=description,
        batches=map(np.stack, in_batches(images, BATCH)),
        names=tuple(_name(item, bundle, folder) for item in items),
        labels=tuple(item.label for item in items),
        groups=tuple(item.group for item in items),
        shard=shard,
    )


def few_images(
    bundle: Bundle, folder: Path | None, samples: int | None, count: int, preferred: Collection[str]
) -> npt.NDArray[np.uint8]:
    """Return a few of the images that `image_set` returns, ``uint8 [up to count, H, W, 3]``.

    Up to half are preferred ones. The others are evenly spaced over the set, because the preferred ones may
    all be of one class.

    Args:
        bundle: bundle whose classes and image size are meant.
        folder: folder of images; sub-folders are classes. None for the bundle's sample images.
        samples: number of images of the set, evenly spaced over all; None for all.
        count: number of images to return.
        preferred: names of images of the set.

    Raises:
        ImageError: if there are no images, or an image cannot be used.
    """
    items, _ = _items(bundle, folder, samples)
    numbers = range(len(items))
    first = evenly_spaced([n for n in numbers if _name(items[n], bundle, folder) in preferred], count // 2)
    others = evenly_spaced([n for n in numbers if n not in first], count - len(first))
    paths = [items[n].path for n in sorted([*first, *others])]
    return np.stack(list(decoded(paths, bundle.manifest.contract)))


def evenly_spaced(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return up to `count` items, evenly spaced over all."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[index] for index in chosen]


def list_folder(bundle: Bundle, folder: Path) -> list[ImageItem]:
    """List the images of a folder; sub-folders are classes.

    Raises:
        ImageError: if there are no images, or a sub-folder is not a class of the model.
    """
    return list_images(folder, bundle.manifest.class_names, bundle.manifest.model.classifier.classes)


def _items(bundle: Bundle, folder: Path | None, samples: int | None) -> tuple[list[ImageItem], str]:
    """Return the images of a set, and its description."""
    if folder:
        items = list_folder(bundle, folder)
        description = printable(str(folder))
    else:
        records = bundle.manifest.samples
        items = [ImageItem(bundle.file(record.file), record.label, record.file.name) for record in records]
        description = "the bundle's samples"
    if samples is not None and samples < len(items):
        description += f", {samples} of {len(items)}"
        items = evenly_spaced(items, samples)
    return items, description


def _name(item: ImageItem, bundle: Bundle, folder: Path | None) -> str:
    return printable(str(item.path.relative_to(folder or bundle.path)))


@dataclass
class ReadableImages:
    """Images of which up to `MAX_UNREADABLE_PERCENT` are skipped if they cannot be read.

    `unreadable` collects the error messages, `read` the images that could be read.
    """

    bundle: Bundle
    items: Sequence[ImageItem]
    unreadable: list[str] = field(default_factory=list)
    read: list[ImageItem] = field(default_factory=list)

    def batches(self, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the readable images in batches ``uint8 [up to size, H, W, 3]``.

        Raises:
            CalibrationError: if more than `MAX_UNREADABLE_PERCENT` of the images cannot be read.
        """
        return map(np.stack, in_batches(self._readable(), size))

    def _readable(self) -> Iterator[npt.NDArray[np.uint8]]:
        for item in self.items:
            try:
                image = contract_image(item.path, self.bundle.manifest.contract)
            except ImageError as error:
                self._skip(error)
                continue
            self.read.append(item)
            yield image

    def _skip(self, error: ImageError) -> None:
        self.unreadable.append(str(error))
        if 100 * len(self.unreadable) > MAX_UNREADABLE_PERCENT * len(self.items):
            raise CalibrationError(
                f"{len(self.unreadable)} of {len(self.items)} images cannot be read, more than "
                f"{MAX_UNREADABLE_PERCENT} %; the last error: {error}"
            ) from error
