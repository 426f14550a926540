"""Decode image files and preprocess them as the contract requires; list the images of a folder."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ccr_deploy.core.untrusted import open_regular, reading
from ccr_deploy.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.codec.contract import Preprocessing

MAX_PIXELS = 100_000_000
"""Limit for the size in an image's header, checked before decoding (against decompression bombs)."""

MAX_ENLARGEMENT = 4
"""Largest factor by which an image is enlarged; smaller images are refused."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""The formats that are opened; the file's extension does not matter.

Pillow supports forty more; some are risky: EPS is passed to Ghostscript.
"""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""File name extensions of the images in a folder."""

# Without a handler, Python prints Pillow's log messages about damaged files, in addition to our error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(path: Path, preprocessing: Preprocessing, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Read and preprocess an image file for the encoder.

    Args:
        path: the image file.
        preprocessing: the contract's preprocessing; normalisation is left to the encoder's graph.
        height: rows of the result, in pixels.
        width: columns of the result, in pixels.

    Returns:
        ``uint8 [height, width, 3]``, RGB.

    Raises:
        ImageError: if the file is missing, not an image or truncated, or the image is too small or too large.
    """
    return fit_image(open_rgb(path), preprocessing, height, width, path)


def open_rgb(path: Path) -> Image.Image:
    """Decode an image file to 8-bit RGB with EXIF rotation applied.

    Raises:
        ImageError: if the file is missing, not an image or truncated, or the image is too large.
    """
    with reading(path, ImageError), open_regular(path) as file:
        return decode_rgb(file, path)


def decode_rgb(file: BinaryIO, path: Path) -> Image.Image:
    """Decode the content of an image file to 8-bit RGB with EXIF rotation applied.

    Args:
        file: the content, from its current position.
        path: the file that the content came from, for messages.

    Raises:
        ImageError: if it is not an image or truncated, or the image is too large.
    """
    try:
        # Pillow warns about decompression bombs, which are refused below, and about missing TIFF tags. Not
        # `catch_warnings`: it restores the filters of another thread that decodes at the same time.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with Image.open(file, formats=FORMATS) as image:
            _check_pixel_count(image, path)
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image (JPEG, PNG, WebP, BMP, TIFF or GIF)") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path}: has more pixels than the limit of {MAX_PIXELS // 1_000_000} million: resize it"
        ) from None
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        raise ImageError(f"{path}: cannot be decoded ({' '.join(str(error).split())})") from error


def _check_pixel_count(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{path}: has {image.width}x{image.height} pixels, over the limit of "
            f"{MAX_PIXELS // 1_000_000} million: resize it"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to RGB: alpha is dropped, 16-bit grey keeps its upper 8 bits.

    Raises:
        ValueError: if the pixels are floating-point, since their range is unknown.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip these modes to 255 instead of scaling them
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def fit_image(
    image: Image.Image, preprocessing: Preprocessing, height: int, width: int, path: Path
) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to cover `resize_to_cover` and crop its centre.

    Args:
        image: the image, in mode RGB.
        preprocessing: the size to cover and the resize filter.
        height: rows of the result, in pixels.
        width: columns of the result, in pixels.
        path: the file that the image came from, for messages.

    Returns:
        ``uint8 [height, width, 3]``.

    Raises:
        ImageError: if the image is too small, or too thin to be resized within the pixel limit.
    """
    rows, columns = preprocessing.resize_to_cover
    scale = max(rows / image.height, columns / image.width)
    if scale > MAX_ENLARGEMENT:
        raise ImageError(
            f"{path}: {image.width}x{image.height} pixels are too few for a {width}x{height} image: "
            f"enlarging it {scale:.1f} times is over the limit of {MAX_ENLARGEMENT}"
        )
    # max, because rounding can give one pixel less than the size to cover.
    size = max(columns, round(image.width * scale)), max(rows, round(image.height * scale))
    # Covering the height makes a very wide and low image huge, although the enlargement is within its limit.
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: {image.width}x{image.height} pixels are too thin for a {width}x{height} image"
        )
    if size != image.size:
        image = image.resize(size, Image.Resampling[preprocessing.resize_filter.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def jpeg(image: npt.NDArray[np.uint8], quality: int = 75) -> bytes:
    """Return an image ``uint8 [H, W, 3]`` encoded as JPEG of the given quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def jpeg_bytes(image: npt.NDArray[np.uint8], quality: int = 75) -> int:
    """Return the size in bytes of an image ``uint8 [H, W, 3]`` encoded as JPEG of the given quality."""
    return len(jpeg(image, quality))


@dataclass(frozen=True)
class ImageItem:
    """One image of a folder: its path, its class (None if it has no label) and its group.

    Images of one `group` are correlated (crops of one region, frames of one video), so confidence intervals
    resample them together. An image that is in no deeper folder is a separate group.
    """

    path: Path
    label: int | None
    group: str


def list_images(
    folder: Path, class_names: Sequence[str], classes: int | None = None, *, ignore_others: bool = False
) -> list[ImageItem]:
    """List the images of a folder and its sub-folders, sorted by path.

    The first level of sub-folders contains the classes, as in torchvision's ImageFolder. Images directly in
    `folder` have no label. Images in a deeper folder (``class/region/image.png``) form one group.

    Args:
        folder: the folder.
        class_names: the names of the classes 0, 1, …; if empty, the sorted names of the sub-folders.
        classes: how many sub-folders there must be if `class_names` is empty; None for any number.
        ignore_others: whether to list only the sub-folders in `class_names` that exist, and skip all other
            content; the result may be empty.

    Raises:
        ImageError: if the folder does not exist or has no images, or a sub-folder is not a class.
    """
    if not folder.is_dir():
        is_file = folder.exists()
        raise ImageError(f"{folder}: {'is a file: give a folder of images' if is_file else 'no such folder'}")
    searched = [folder / name for name in class_names] if ignore_others else [folder]
    found = chain.from_iterable(each.rglob("*") for each in searched)
    # Sorted, since the order of rglob depends on the file system, and results must not.
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    if not (paths or ignore_others):
        raise ImageError(f"{folder}: contains no images ({', '.join(sorted(SUFFIXES))})")
    relative = [path.relative_to(folder) for path in paths]
    folders = sorted({path.parts[0] for path in relative if len(path.parts) > 1})
    if class_names and folders and not set(folders) <= set(class_names):
        unknown = [name for name in folders if name not in class_names]
        raise ImageError(
            f"{folder}: {len(unknown)} of {len(folders)} sub-folders are not classes of the model: "
            f"{', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''} "
            f"(the model's classes are {', '.join(class_names[:3])}{', …' if len(class_names) > 3 else ''})"
        )
    if folders and not class_names and classes not in {None, len(folders)}:
        raise ImageError(
            f"{folder}: {len(folders)} sub-folders for the model's {classes} classes: the checkpoint has no "
            "class names, so one sub-folder for each class is needed"
        )
    labels = {name: number for number, name in enumerate(class_names or folders)}
    return [
        ImageItem(
            path=path,
            label=labels[name.parts[0]] if len(name.parts) > 1 else None,
            group=str(name.parent if len(name.parts) > 2 else name),
        )
        for path, name in zip(paths, relative, strict=True)
    ]


def load_images(
    paths: Sequence[Path], preprocessing: Preprocessing, height: int, width: int
) -> npt.NDArray[np.uint8]:
    """Read and preprocess several image files as one batch.

    Args:
        paths: the image files.
        preprocessing: the contract's preprocessing.
        height: rows of each image, in pixels.
        width: columns of each image, in pixels.

    Returns:
        ``uint8 [N, height, width, 3]``, in the order of `paths`.

    Raises:
        ImageError: if one of them cannot be used.
    """
    return np.stack([load_image(path, preprocessing, height, width) for path in paths])
