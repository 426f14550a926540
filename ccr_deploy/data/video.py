"""Read frames from a video file or a camera with OpenCV."""

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
    """A source of frames.

    Attributes:
        source: the path of a video file, or the number of a camera.
        every: take each `every`-th frame, beginning with the first.
        frames: the most frames to take; None for all.
    """

    source: str
    every: int = 1
    frames: int | None = None

    @property
    def is_camera(self) -> bool:
        """Whether the source is a camera, which has no last frame."""
        return self.source.isdecimal()

    def read_frames(self) -> Iterator[tuple[int, Image.Image]]:
        """Yield each frame's number in the source, from 0, and the frame as an RGB image.

        Frames are rotated as the video file specifies.

        Raises:
            WrongUsageError: if the file does not exist.
            ImageError: if OpenCV cannot read the source, or it has no frames.
            MissingExtraError: if OpenCV is not installed.
        """
        number = taken = 0
        with self._opened() as capture:
            # grab() leaves out the conversion of retrieve(), so skipped frames cost less.
            while taken != self.frames and capture.grab():
                if number % self.every == 0:
                    readable, pixels = capture.retrieve()
                    if not readable:
                        raise ImageError(f"{self.source}: frame {number} cannot be decoded")
                    yield number, Image.fromarray(pixels[:, :, ::-1])  # OpenCV's frames are BGR
                    taken += 1
                number += 1
        if number == 0:
            raise ImageError(f"{self.source}: contains no frames")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        opencv = _import_opencv()
        if not self.is_camera and not Path(self.source).is_file():
            raise WrongUsageError(f"{self.source}: no such file (for a camera, give its number)")
        capture = opencv.VideoCapture(int(self.source) if self.is_camera else self.source)
        try:
            if not capture.isOpened():
                camera, file = "no such camera, or it is in use", "not a video that OpenCV reads"
                raise ImageError(f"{self.source}: {camera if self.is_camera else file}")
            yield capture
        finally:
            capture.release()


def _import_opencv() -> Any:  # noqa: ANN401 -- the library's types are incomplete
    # OpenCV and FFmpeg print messages about a file; the errors above replace them. Read when cv2 is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("opencv-python-headless", "video", "a video or camera") from None
    return cv2
