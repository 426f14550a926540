"""Reading of video frames, from videos that the tests write."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.data.video import Video
from ccr_deploy.errors import ImageError, WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = (
    (250, 5, 5),
    (5, 250, 5),
    (5, 5, 250),
    (250, 250, 5),
    (5, 250, 250),
    (250, 5, 250),
    (120, 120, 120),
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Write a video of seven frames, each of one colour."""
    opencv = pytest.importorskip("cv2", reason="OpenCV (the extra video) is not installed")
    path = tmp_path / "clip.avi"
    writer = opencv.VideoWriter(str(path), opencv.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for red, green, blue in COLOURS:
        writer.write(np.full((48, 64, 3), (blue, green, red), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("every", "frames", "numbers"),
    [
        (1, None, [0, 1, 2, 3, 4, 5, 6]),
        (3, None, [0, 3, 6]),
        (1, 2, [0, 1]),
        (2, 3, [0, 2, 4]),
        (100, None, [0]),
        (1, 100, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_selected_frames_are_read_with_their_numbers(
    every: int, frames: int | None, numbers: list[int], clip: Path
) -> None:
    assert [number for number, _ in Video(str(clip), every, frames).read_frames()] == numbers


def test_colours_are_rgb(clip: Path) -> None:
    for number, image in Video(str(clip)).read_frames():
        assert (image.mode, image.size) == ("RGB", (64, 48))
        np.testing.assert_allclose(np.asarray(image).mean(axis=(0, 1)), COLOURS[number], atol=12)


def test_a_missing_video_is_refused_and_named(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV (the extra video) is not installed")
    with pytest.raises(WrongUsageError, match=r"none\.avi: no such file"):
        next(Video(str(tmp_path / "none.avi")).read_frames())


@pytest.mark.parametrize("content", [b"", b"not a video", b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(200)])
def test_a_file_that_is_not_a_video_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV (the extra video) is not installed")
    (tmp_path / "clip.avi").write_bytes(content)
    with pytest.raises(ImageError, match=r"clip\.avi: (not a video|no frame)"):
        list(Video(str(tmp_path / "clip.avi")).read_frames())


def test_a_missing_camera_is_refused() -> None:
    pytest.importorskip("cv2", reason="OpenCV (the extra video) is not installed")
    with pytest.raises(ImageError, match="99: no such camera"):
        next(Video("99").read_frames())


def test_missing_opencv_is_reported_with_its_extra(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['cv2'] = None  # as if it were not installed\n"
        "from ccr_deploy.errors import MissingExtraError\n"
        "from ccr_deploy.data.video import Video\n"
        "try:\n"
        "    next(Video('0').read_frames())\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'ccr-deploy[video]'" in done.stdout
    assert done.stderr == ""
