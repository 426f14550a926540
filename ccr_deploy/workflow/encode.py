"""Images and frames to payload files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.payload import SUFFIX
from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.data.images import fit_image
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.workflow.batches import in_batches
from ccr_deploy.workflow.sources import contract_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from ccr_deploy.data.video import Video
    from ccr_deploy.runtime import Encoder
    from ccr_deploy.workflow.sources import SourceFile

    Item = tuple[str, Path, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Encoded:
    """A payload that was written: what it was made from, its file and size."""

    source: str
    payload: Path
    payload_bytes: int


def payload_paths(files: Sequence[SourceFile], output: Path, *, into_folder: bool) -> list[Path]:
    """Where the payloads of image files go: each into the folder `output` under its name, or one to `output`.

    Raises:
        WrongUsageError: two would have one name, or a payload would replace its image.
    """
    named = [output / file.name.with_suffix(SUFFIX) for file in files]
    paths = named if into_folder else [output]
    sources: dict[Path, Path] = {}
    for file, path in zip(files, paths, strict=True):
        if path in sources:
            raise WrongUsageError(
                f"{sources[path]} and {file.path} would both become {path}: encode them one after the "
                "other into two folders"
            )
        if path.resolve() == file.path.resolve():
            raise WrongUsageError(f"{path}: is the image itself: name another output")
        sources[path] = file.path
    return paths


def encode_images(
    encoder: Encoder, files: Sequence[SourceFile], paths: Sequence[Path], batch: int
) -> Iterator[Encoded]:
    """Writes the payloads of images to `paths`, batch by batch, and tells of each.

    No more than one batch of images is in memory.

    Args:
        encoder: its bundle says how image files become images.
        files: image files to encode.
        paths: where the payload of each goes.
        batch: how many images the encoder is given at once.

    Raises:
        ImageError: an image cannot be used; the payloads before its batch are written.
        CcrDeployError: a payload cannot be written.
    """
    contract = encoder.contract
    items = (
        (str(file.path), path, contract_image(file.path, contract))
        for file, path in zip(files, paths, strict=True)
    )
    return _written(encoder, items, batch)


def encode_video(encoder: Encoder, video: Video, folder: Path, batch: int) -> Iterator[Encoded]:
    """Writes the payloads of frames into a folder, as ``frame-00000000.ccr`` and so on.

    Args:
        encoder: its bundle says how frames become images.
        video: where they come from.
        folder: where the payloads go.
        batch: how many images the encoder is given at once.

    Raises:
        WrongUsageError, ImageError, MissingExtraError: the frames cannot be read, or are too small.
        CcrDeployError: a payload cannot be written.
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
