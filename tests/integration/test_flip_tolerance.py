"""The flip tolerance of a trained model predicts what flips cost on other images; commands measure it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.tolerance import (
    KINDS,
    LEVELS_PERCENT,
    FlippedKind,
    FlipTolerance,
    classes_after_flips,
    flip,
    flip_tolerance,
    order_of,
)
from ccr_deploy.bundle.writer import writing_bundle
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.metrics import grouped_bootstrap_interval
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.reference import as_margins
from tests.support.cli_runner import run
from tests.support.demo import train_demo_briefly

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.models.checkpoint import Checkpoint
    from tests.support.demo import CalibratedDemo
    from tests.support.workers import Shared

BROKE, WRONG_USAGE = 3, 2
BITS = 288  # of a code of the demo's model
DIVISIONS = 12


@dataclass(frozen=True)
class Coded:
    """Codes of the demo's test crops, margins of their bits, and how to classify codes."""

    codes: npt.NDArray[np.uint8]
    margins: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    classify: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        return classes_after_flips(self.codes, self.margins, self.classify)

    def tolerance(self, chosen: npt.NDArray[np.bool_]) -> FlipTolerance:
        labels, groups = self.labels[chosen].tolist(), self.groups[chosen].tolist()
        return flip_tolerance(self.classes[chosen], BITS, labels=labels, groups=groups, images="test crops")

    def lost(self, kind: FlippedKind, percent: float) -> npt.NDArray[np.float64]:
        """Flip a share of the bits; return 100 for each image that only the unflipped code gets right.

        -100 for those that only the flipped one gets right, else 0: the mean is the loss in points.
        """
        flipped = flip(self.codes, order_of(kind, self.codes, self.margins), flipped_bits(percent))
        right, still_right = (
            self.classify(codes).argmax(axis=1) == self.labels for codes in (self.codes, flipped)
        )
        return 100 * (right.astype(np.float64) - still_right)


def flipped_bits(percent: float) -> int:
    return round(percent * BITS / 100)


@pytest.fixture(scope="module")
def well_trained(shared: Shared) -> Checkpoint:
    """The demo's model after a third of its training: well above chance, so that flips cost something."""
    return shared.made_once(
        "well-trained", lambda _: train_demo_briefly(pretrain_epochs=1.25, finetune_epochs=7.5)
    )


@pytest.fixture(scope="module")
def coded(well_trained: Checkpoint) -> Coded:
    import torch

    from ccr_deploy.codec.contract import unpack_code
    from ccr_deploy.models.chain import normalise
    from ccr_deploy.models.checkpoint import build_model
    from training.data.photos import TestCrops, load_photos

    crops = TestCrops(load_photos(), 48)
    images = torch.stack([crops[index][0] for index in range(len(crops))])
    labels = np.array([crops[index][1] for index in range(len(crops))])
    groups = np.array(crops.groups)
    model = build_model(well_trained).eval()
    with torch.inference_mode():
        activations = model.encoder.pre_binarization(
            normalise(images, well_trained.preprocessing), well_trained.config.iterations
        ).numpy()

    def classify(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return model.classifier(torch.from_numpy(unpack_code(codes, activations.shape[1:]))).numpy()

    flat = activations.reshape(len(activations), -1)
    return Coded(pack_code(flat), as_margins(flat), labels, groups, classify)


@pytest.fixture(scope="module")
def divisions(coded: Coded) -> list[npt.NDArray[np.bool_]]:
    """The images of three quarters of the groups, drawn in several ways."""
    groups = np.unique(coded.groups)
    return [
        np.isin(coded.groups, np.random.default_rng(seed).permutation(groups)[: 3 * len(groups) // 4])
        for seed in range(DIVISIONS)
    ]


@pytest.fixture(scope="module")
def tolerances(coded, divisions) -> list[FlipTolerance]:
    return [coded.tolerance(measured_on) for measured_on in divisions]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percent", [2, 5, 15])
def test_the_predicted_loss_is_within_the_interval_of_planted_flips(
    coded, divisions, tolerances, kind, percent
) -> None:
    """The loss is predicted from other images than it is measured on.

    The prediction varies too, so that it is within the interval in fewer than 95 % of the divisions: in 69 to
    100 % with the demo's checkpoint, by kind and share. Training differs from processor to processor, so one
    division alone would fail on some.
    """
    lost = coded.lost(kind, percent)
    within = 0
    for measured_on, tolerance in zip(divisions, tolerances, strict=True):
        planted = grouped_bootstrap_interval(lost[~measured_on], coded.groups[~measured_on].tolist())
        predicted = tolerance.top1_loss_points(kind, 100 * flipped_bits(percent) / BITS)
        within += planted.low <= predicted <= planted.high
    assert within >= DIVISIONS / 2


def test_many_flips_cost_more_than_chance_and_random_ones_the_most(coded, tolerances) -> None:
    lost = {kind: coded.lost(kind, 15).mean() for kind in KINDS}
    assert lost["random"] > lost["near zero"] > 2
    for tolerance in tolerances:
        assert tolerance.top1_loss_points("random", 16) > tolerance.top1_loss_points("near zero", 16)


def with_tolerance(bundle: Bundle, tolerance: FlipTolerance) -> Bundle:
    return Bundle(bundle.path, structs.replace(bundle.manifest, tolerance=tolerance))


def test_with_enough_groups_the_limit_comes_from_the_model(calibrated_demo, coded) -> None:
    tolerance = coded.tolerance(np.full(len(coded.codes), fill_value=True))
    limits = GateLimits.of(["int8"], with_tolerance(calibrated_demo.bundle, tolerance))
    share = limits.by_name["max-flipped-percent"]
    assert tolerance.top1_loss_points("near zero", share) == pytest.approx(1)
    assert "95 % interval" in limits.reasons["max-flipped-percent"]


def test_with_too_few_groups_the_fixed_limits_stay(calibrated_demo, coded) -> None:
    few = coded.tolerance(np.isin(coded.groups, np.unique(coded.groups)[:12]))
    limits = GateLimits.of(["int8"], with_tolerance(calibrated_demo.bundle, few))
    assert limits.by_name["max-flipped-percent"] == 2
    assert limits.reasons["max-flipped-percent"] == "fixed: 12 labelled groups, 30 are needed"


@pytest.fixture
def demo(calibrated_demo: CalibratedDemo, tmp_path: Path) -> Path:
    """A copy of the calibrated demo bundle."""
    return shutil.copytree(calibrated_demo.bundle.path, tmp_path / "bundle")


def measure(demo: Path, images: Path, *options: object):
    store = demo.parent / "engines"
    return run("verify", demo, "--tolerance", "--images", images, "--engines", store, *options)


def test_calibrate_and_verify_measure_the_same_tolerance(calibrated_demo, demo) -> None:
    """The graphs and PyTorch give the same codes up to ties, and the same classes of the same codes."""
    images = calibrated_demo.folder / "images"
    by_calibrate = Bundle.open(demo).manifest.tolerance
    assert by_calibrate is not None
    assert (by_calibrate.images, by_calibrate.image_count) == (str(images), 320)
    outcome = measure(demo, images, "--samples", 320, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    by_verify = Bundle.open(demo).manifest.tolerance
    assert by_verify is not None
    assert json.loads(outcome.stdout)["image_count"] == by_verify.image_count == 320
    assert by_verify.labelled_groups == by_calibrate.labelled_groups
    for one, other in zip(by_verify.costs, by_calibrate.costs, strict=True):
        assert one.flipped_percent == other.flipped_percent
        assert one.same_top1_percent == pytest.approx(other.same_top1_percent, abs=1)
    assert by_verify.costs[0].flipped_percent <= LEVELS_PERCENT[1]


def test_verify_shows_the_limits_with_their_reason(calibrated_demo, demo) -> None:
    options = ("--target", "cpu", "--int8", "--engines", demo.parent / "engines")
    assert run("build-engine", demo, *options).status == 0
    images = ("--images", calibrated_demo.folder / "images", "--samples", 32)
    tolerance = Bundle.open(demo).manifest.tolerance
    assert tolerance is not None
    found = json.loads(run("verify", demo, *options, *images, "--json").stdout)
    gate = next(g for g in found["gates"] if (g["name"], g["level"]) == ("max-flipped-percent", "engine"))
    assert gate["limit"] == tolerance.tolerated("near zero", 1).percent
    assert gate["limit_reason"].startswith("flip tolerance: 1 point lost at ")
    assert found["tolerance"]["labelled_groups"] == tolerance.labelled_groups
    engine = next(c for c in found["codes"] if (c["level"], c["against"]) == ("engine", "pytorch"))
    assert engine["far_flips"] < engine["flipped_bits"] / 2
    with writing_bundle(demo) as writer:
        writer.commit(structs.replace(Bundle.open(demo).manifest, tolerance=None))
    shown = run("verify", demo, *options, *images).stdout
    assert "fixed: the bundle has no flip tolerance" in shown
    assert "--tolerance --images DIR" in shown


def test_calibrating_from_a_table_keeps_the_tolerance(calibrated_demo, demo, tmp_path) -> None:
    before = Bundle.open(demo).manifest
    assert before.calibration is not None
    table = shutil.copy(demo / before.calibration.table.name, tmp_path / "ranges.json")
    assert run("calibrate", demo, "--table", table).status == 0
    assert Bundle.open(demo).manifest.tolerance == before.tolerance


def test_a_calibration_without_labels_keeps_the_tolerance(calibrated_demo, demo, tmp_path) -> None:
    before = Bundle.open(demo).manifest
    assert before.calibration is not None
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    for index, image in enumerate(sorted((calibrated_demo.folder / "images").rglob("*.png"))[:8]):
        shutil.copy(image, unlabelled / f"{index}.png")
    table = shutil.copy(demo / before.calibration.table.name, tmp_path / "ranges.json")
    assert run("calibrate", demo, "--table", table, "--held-out", unlabelled).status == 0
    assert Bundle.open(demo).manifest.tolerance == before.tolerance


def test_tolerance_needs_images_and_no_engines(demo) -> None:
    outcome = run("verify", demo, "--tolerance")
    assert outcome.status == WRONG_USAGE
    assert "--tolerance needs labelled images: add --images DIR" in outcome.stderr
    outcome = measure(demo, demo, "--target", "cpu")
    assert outcome.status == WRONG_USAGE
    assert "--tolerance does not accept --target" in outcome.stderr


def test_a_bundle_that_cannot_be_written_stays_and_is_reported_first(calibrated_demo, demo) -> None:
    before = (demo / "manifest.json").read_bytes()
    code = (
        "import resource, signal, sys\n"
        "from ccr_deploy.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "sys.argv[0] = 'ccr-deploy'\n"
        "main()\n"
    )
    command = (sys.executable, "-c", code, "verify", demo, "--tolerance", "--images", calibrated_demo.images)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == BROKE
    assert finished.stderr == f"ccr-deploy: error: {demo}: cannot be written (File too large)\n"
    assert (demo / "manifest.json").read_bytes() == before
    assert not (demo.parent / "engines").exists()
