"""`calibrate --check`: do the ranges still fit the images of production?"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.cli_runner import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from tests.support.demo import CalibratedDemo

    Pixels = npt.NDArray[np.uint8]

CHECK_FAILED, WRONG_USAGE, BROKE = 1, 2, 3


def shifted(images: Path, folder: Path, shift: Callable[[Pixels], Pixels]) -> Path:
    """Write every eighth held-out image, changed, into a folder whose sub-folders are not classes."""
    (folder / "camera 1").mkdir(parents=True)
    for number, path in enumerate(sorted(images.rglob("*.png"))[::8]):
        pixels = shift(np.asarray(Image.open(path).convert("RGB")))
        Image.fromarray(pixels).save(folder / "camera 1" / f"{number}.png")
    return folder


def brighter(pixels: Pixels) -> Pixels:
    return np.minimum(2 * pixels.astype(int), 255).astype(np.uint8)


def test_held_out_images_fit(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    folder = shifted(calibrated_demo.folder / "images", tmp_path / "honest", lambda pixels: pixels)
    outcome = run("calibrate", calibrated_demo.bundle.path, "--check", folder)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "Clipped activations on 160 images" in outcome.stdout


@pytest.mark.parametrize("shift", [brighter, lambda pixels: 255 - pixels], ids=["brighter", "inverted"])
def test_shifted_images_are_found_with_the_worst_tensor_first(
    calibrated_demo: CalibratedDemo, tmp_path: Path, shift: Callable[[Pixels], Pixels]
) -> None:
    folder = shifted(calibrated_demo.folder / "images", tmp_path / "shifted", shift)
    outcome = run("calibrate", calibrated_demo.bundle.path, "--check", folder, "--json")
    assert outcome.status == CHECK_FAILED
    assert "calibrate again on images like these" in outcome.error_line
    report = json.loads(outcome.stdout)
    worst = report["tensors"][0]
    assert not report["passed"]
    assert worst["is_over"]
    assert worst["clipped_percent"] > worst["limit_percent"]
    assert f"{worst['stage']} {worst['tensor']}" in outcome.error_line
    ratios = [entry["clipped_percent"] / entry["limit_percent"] for entry in report["tensors"]]
    assert ratios == sorted(ratios, reverse=True)
    assert "FAIL" in run("calibrate", calibrated_demo.bundle.path, "--check", folder).stdout


@pytest.mark.parametrize(
    "method",
    [
        ("percentile", "--percentile", 98),
        ("minmax",),
        pytest.param(("entropy",), marks=pytest.mark.slow),  # finding its ranges takes half a minute
    ],
    ids=lambda method: method[0],
)
def test_the_table_records_the_share_that_a_check_of_the_same_images_finds(
    calibrated_demo: CalibratedDemo, tmp_path: Path, method: tuple[object, ...]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(calibrated_demo.bundle.path, bundle)
    images = ("--images", calibrated_demo.images, "--samples", 256)
    calibrated = run("calibrate", bundle, *images, "--method", *method, "--keep-high-precision", "")
    assert calibrated.status == 0, calibrated.stderr
    report = json.loads(run("calibrate", bundle, "--check", calibrated_demo.images, "--json").stdout)
    assert report["image_count"] == report["calibration_image_count"] == 256
    for entry in report["tensors"]:
        # The histograms have 2,048 bins, and the scale is the widest of all iterations.
        recorded = entry["calibration_clipped_percent"]
        assert entry["clipped_percent"] == pytest.approx(recorded, rel=0.1, abs=0.02), entry["tensor"]
    largest = max(entry["calibration_clipped_percent"] for entry in report["tensors"])
    assert (largest == 0) == (method[0] == "minmax")


def test_a_few_broken_images_are_skipped_and_many_are_an_error(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    folder = shifted(calibrated_demo.folder / "images", tmp_path / "images", lambda pixels: pixels)
    paths = sorted(folder.rglob("*.png"))
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    outcome = run("calibrate", calibrated_demo.bundle.path, "--check", folder)
    assert outcome.status == 0
    assert outcome.error_line.startswith(f"ccr-deploy: skipped: {paths[0]}")
    for path in paths[:20]:
        path.write_bytes(b"no image")
    outcome = run("calibrate", calibrated_demo.bundle.path, "--check", folder)
    assert outcome.status == BROKE
    assert "images cannot be read, more than 5 %" in outcome.error_line


def test_samples_are_evenly_spaced(calibrated_demo: CalibratedDemo) -> None:
    common = ("calibrate", calibrated_demo.bundle.path, "--check", calibrated_demo.images)
    assert json.loads(run(*common, "--samples", 5, "--json").stdout)["image_count"] == 5


def test_a_bundle_that_was_not_calibrated_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    Image.new("RGB", (48, 32)).save(tmp_path / "image.png")
    outcome = run("calibrate", tiny_bundle.path, "--check", tmp_path)
    assert outcome.status == WRONG_USAGE
    assert f"has no calibration table: run ccr-deploy calibrate {tiny_bundle.path} --images" in (
        outcome.error_line
    )


def test_a_missing_or_empty_folder_is_refused(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "none", "no such file"), (tmp_path, "contains no images")):
        outcome = run("calibrate", calibrated_demo.bundle.path, "--check", folder)
        assert outcome.status != 0
        assert f"{folder}: {message}" in outcome.error_line


def test_a_damaged_table_is_refused(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(calibrated_demo.bundle.path, bundle)
    (table,) = bundle.glob("calibration.*.json")
    table.write_text(table.read_text().replace('"minmax"', '"maxmin"').replace("percentile", "percentil"))
    outcome = run("calibrate", bundle, "--check", calibrated_demo.images)
    assert outcome.status == BROKE
    assert f"{table}: damaged or changed" in outcome.error_line


def test_other_options_are_refused(calibrated_demo: CalibratedDemo) -> None:
    common = ("calibrate", calibrated_demo.bundle.path, "--check", calibrated_demo.images)
    for option in (("--images", calibrated_demo.images), ("--method", "minmax"), ("--sensitivity",)):
        outcome = run(*common, *option)
        assert outcome.status == WRONG_USAGE
        assert "--check only reads the bundle" in outcome.stderr
