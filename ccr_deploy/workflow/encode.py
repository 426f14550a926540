"""Encoding of images and video frames to payload files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.payload import SUFFIX
from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.shards import WHOLE, Shard
from ccr_deploy.data.images import fit_image
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.workflow.batches import in_batches
from ccr_deploy.workflow.decoding import decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from ccr_deploy.data.video import Video
    from ccr_deploy.runtime import Encoder
    from ccr_deploy.workflow.sources import SourceFile

    Item = tuple[str, Path, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Encoded:
    """A payload file that was written: its source, path and size."""

    source: str
    payload: Path
    payload_bytes: int


def payload_paths(files: Sequence[SourceFile], output: Path, *, into_folder: bool) -> list[Path]:
    """Return the payload path of each image file.

    Args:
        files: image files.
        output: folder of the payloads, or path of the payload of a single image.
        into_folder: whether `output` is a folder.

    Raises:
        WrongUsageError: if two payloads would have the same path, or a payload would replace its image.
    """
    named = [output / file.name.with_suffix(SUFFIX) for file in files]
    paths = named if into_folder else [output]
    sources: dict[Path, Path] = {}
    for file, path in zip(files, paths, strict=True):
        if path in sources:
            raise WrongUsageError(
                f"{sources[path]} and {file.path} have the same payload path {path}: "
                "encode them into different folders"
            )
        if path.resolve() == file.path.resolve():
            raise WrongUsageError(f"{path}: is the image itself: choose another --output")
        sources[path] = file.path
    return paths


def encode_images(
    encoder: Encoder, files: Sequence[SourceFile], paths: Sequence[Path], batch: int, shard: Shard = WHOLE
) -> Iterator[Encoded]:
    """Write the payloads of images, batch by batch, and yield each.

    In memory are one batch of images and those that are decoded ahead.

    Args:
        encoder: encoder, whose contract defines the preprocessing of images.
        files: image files to encode.
        paths: payload path of each image file.
        batch: images per run of the encoder.
        shard: shard of the batches to encode.

    Raises:
        ImageError: if an image cannot be read or is too small; payloads of earlier batches are kept.
        CcrDeployError: if a payload cannot be written.
    """
    batches = shard.chosen(in_batches(zip(files, paths, strict=True), batch))
    chosen = list(chain.from_iterable(batches))
    images = decoded((file.path for file, _ in chosen), encoder.contract)
    items = ((str(file.path), path, image) for (file, path), image in zip(chosen, images, strict=True))
    return _written(encoder, items, batch)


def encode_video(encoder: Encoder, video: Video, folder: Path, batch: int) -> Iterator[Encoded]:
    """Write the payloads of frames into a folder, as ``frame-00000000.ccr`` and so on, and yield each.

    Args:
        encoder: encoder, whose contract defines the preprocessing of frames.
        video: source of the frames.
        folder: folder of the payloads.
        batch: frames per run of the encoder.

    Raises:
        WrongUsageError: if the video cannot be opened.
        ImageError: if a frame cannot be read or is too small.
        MissingExtraError: if OpenCV is not installed.
        CcrDeployError: if a payload cannot be written.
    """
    contract = encoder.contract
    size = contract.image_height, contract.image_width

    def items() -> Iterator[Item]:
        for number, frame in video.read_frames():
            image = fit_image(frame, contract.preprocessing, *size, Path(video.source))
            yield f"{video.source}, frame {number}", folder / f"frame-{number:08}{SUFFIX}", image

    return _written(encoder, items(), batch)


def _written(encoder: Encoder, items: Iterable[Item], batch: int) -> Iterator[Encoded]:
    for part in in_batches(items, batch):
        payloads = encoder.encode(np.stack([image for _, _, image in part]))
        for (source, path, _), payload in zip(part, payloads, strict=True):
            with writing(path, CcrDeployError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, payload)
            yield Encoded(source, path, len(payload))
