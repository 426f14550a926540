"""Frames of a video's file or of a camera, by OpenCV."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ccr_deploy.errors import ImageError, MissingExtraError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Video:
    """A source of frames: a file's path, or a camera's number.

    Every `every`-th frame counts, and at most `frames` of them, where that is given.
    """

    source: str
    every: int = 1
    frames: int | None = None

    @property
    def is_camera(self) -> bool:
        """Whether the source is a camera, whose frames do not end."""
        return self.source.isdecimal()

    def read_frames(self) -> Iterator[tuple[int, Image.Image]]:
        """The frames as RGB images, turned as the file says, with their numbers in the source, from 0.

        Raises:
            WrongUsageError: there is no such file.
            ImageError: OpenCV cannot read it, or there is no frame.
            MissingExtraError: OpenCV is not installed.
        """
        number = taken = 0
        with self._opened() as capture:
            while taken != self.frames and capture.grab():
                if number % self.every == 0:
                    readable, pixels = capture.retrieve()
                    if not readable:
                        raise ImageError(f"{self.source}: frame {number} cannot be decoded")
                    yield number, Image.fromarray(pixels[:, :, ::-1])  # OpenCV's frames are BGR
                    taken += 1
                number += 1
        if number == 0:
            raise ImageError(f"{self.source}: no frame comes from it")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        opencv = _import_opencv()
        if not self.is_camera and not Path(self.source).is_file():
            raise WrongUsageError(f"{self.source}: no such file (a camera is named by its number)")
        capture = opencv.VideoCapture(int(self.source) if self.is_camera else self.source)
        try:
            if not capture.isOpened():
                camera, file = "no such camera, or it is in use", "not a video that OpenCV reads"
                raise ImageError(f"{self.source}: {camera if self.is_camera else file}")
            yield capture
        finally:
            capture.release()


def _import_opencv() -> Any:  # noqa: ANN401 -- the library's types are incomplete
    # What OpenCV and FFmpeg would print about a file is told by the errors above.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "video", "a video or camera") from None
    return cv2
