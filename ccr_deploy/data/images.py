"""Images as the contract wants them: decoded, turned, converted, resized, cropped."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ccr_deploy.core.untrusted import open_regular
from ccr_deploy.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.codec.contract import Preprocessing

MAX_PIXELS = 100_000_000
"""An image that claims more is refused before it is decoded."""

MAX_ENLARGEMENT = 4
"""An image that would have to be enlarged more is refused as too small."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""What is opened, whatever a file is called: Pillow hands EPS to Ghostscript, and knows forty more."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""The files of a folder that count as images."""

# Or Python prints what Pillow logs of a damaged file, beside the one line that says that it is.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def load_image(path: Path, preprocessing: Preprocessing, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The image at `path` as the encoder's image, ``uint8 [height, width, 3]``.

    Raises:
        ImageError: the file is missing, no image, truncated, too small or too large.
    """
    return fit_image(open_rgb(path), preprocessing, height, width, path)


def open_rgb(path: Path) -> Image.Image:
    """The image at `path`, EXIF rotation applied, as 8-bit RGB.

    Raises:
        ImageError: the file is missing, no image, truncated or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, which are refused here, and of what a TIFF lacks
            with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
                _check_pixel_count(image, path)
                return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image (JPEG, PNG, WebP, BMP, TIFF or GIF)") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: claims far more pixels than the limit of {MAX_PIXELS}") from None
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        raise ImageError(f"{path}: cannot be decoded ({' '.join(str(error).split())})") from error


def _check_pixel_count(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{path}: claims {image.width}x{image.height} pixels, over the limit of "
            f"{MAX_PIXELS // 1_000_000} million: make it smaller"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB; alpha is dropped, 16-bit grey keeps its upper 8 bits.

    Raises:
        ValueError: floating-point pixels, whose range nothing tells.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def fit_image(
    image: Image.Image, preprocessing: Preprocessing, height: int, width: int, path: Path
) -> npt.NDArray[np.uint8]:
    """An RGB image resized to cover and cropped at its centre: ``uint8 [height, width, 3]``.

    Raises:
        ImageError: the image is too small; the message names `path`.
    """
    rows, columns = preprocessing.resize_to_cover
    scale = max(rows / image.height, columns / image.width)
    if scale > MAX_ENLARGEMENT:
        raise ImageError(
            f"{path}: {image.width}x{image.height} pixels are too few: a {width}x{height} image would need "
            f"{scale:.1f}-fold enlargement (at most {MAX_ENLARGEMENT})"
        )
    size = max(columns, round(image.width * scale)), max(rows, round(image.height * scale))
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: {image.width}x{image.height} pixels are too thin for a {width}x{height} image"
        )
    if size != image.size:
        image = image.resize(size, Image.Resampling[preprocessing.resize_filter.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def jpeg_bytes(image: npt.NDArray[np.uint8], quality: int = 75) -> int:
    """How many bytes an image ``uint8 [H, W, 3]`` takes as a JPEG of the given quality."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.tell()


@dataclass(frozen=True)
class ImageItem:
    """One image of a folder.

    Images of one `group` resemble each other (crops of one region, frames of one video), so that
    intervals resample them together; without sub-folders each image is its own group.
    """

    path: Path
    label: int | None
    group: str


def list_images(folder: Path, class_names: Sequence[str], classes: int | None = None) -> list[ImageItem]:
    """The images under `folder`, sorted by path.

    The first level of sub-folders names classes as in torchvision's ImageFolder: where `class_names`
    is empty, the sorted folder names are the classes 0, 1, … and must be as many as `classes`, where that
    is given; a folder without sub-folders has no labels. Images in a deeper folder
    (``class/region/image.png``) form one group.

    Raises:
        ImageError: there is no such folder, no image in it, or a sub-folder names no class.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ImageError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))})")
    relative = [path.relative_to(folder) for path in paths]
    folders = sorted({path.parts[0] for path in relative if len(path.parts) > 1})
    if class_names and folders and not set(folders) <= set(class_names):
        unknown = [name for name in folders if name not in class_names]
        raise ImageError(
            f"{folder}: {len(unknown)} of {len(folders)} sub-folders name no class of the model: "
            f"{', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''} "
            f"(the model's classes begin {', '.join(class_names[:3])})"
        )
    if folders and not class_names and classes not in {None, len(folders)}:
        raise ImageError(
            f"{folder}: {len(folders)} sub-folders for the model's {classes} classes, whose names its "
            "checkpoint does not tell: one sub-folder for each class is needed"
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
    """The images at `paths` as one batch, ``uint8 [N, height, width, 3]``.

    Raises:
        ImageError: one of them cannot be used.
    """
    return np.stack([load_image(path, preprocessing, height, width) for path in paths])
