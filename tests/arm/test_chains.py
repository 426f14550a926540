"""Payloads, classes and logits of the demo's images, on an emulated Arm and on this machine.

Two correct FP32 computations sum in different orders, so that a bit may flip only if its pre-binarization
activation is close to zero. In INT8 such a difference in the last digit can round an inner layer's activation
to the neighbouring step, which moves what depends on it by a step's size: more bits flip, further from zero,
but within the gates that an INT8 engine has against FP32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.measures import TIE_MARGIN
from tests.arm.differences import differences
from tests.arm.processors import CORTEX_A76, PROCESSORS
from tests.arm.sides import Arm, run, run_chain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.arm.differences import Differences
    from tests.arm.processors import Processor
    from tests.arm.reference import Reference
    from tests.arm.root_folder import RootFolder
    from tests.arm.sides import Precision

pytestmark = pytest.mark.arm


class Compare(Protocol):
    """The fixture `compare`."""

    def __call__(self, target: str, precision: Precision) -> Differences: ...


@pytest.fixture(params=PROCESSORS, ids=lambda entry: entry.qemu_name)
def processor(request: pytest.FixtureRequest) -> Processor:
    return request.param


@pytest.fixture
def compare(
    root: RootFolder,
    processor: Processor,
    reference: Reference,
    found: dict[str, Differences],
    tmp_path: Path,
) -> Compare:
    """Runs a target's chain in a precision on an Arm and on this machine, and records the differences."""

    def run_both(target: str, precision: Precision) -> Differences:
        expected = reference.chain(target, precision)
        arm = Arm(root, processor, reference.demo, tmp_path)
        computed = run_chain(arm, target, precision, asked=expected.payloads)
        differing = differences(computed, expected, reference.activations(precision))
        found[f"{processor.qemu_name}, {target}, {precision}"] = differing
        return differing

    return run_both


def limits(demo: Path, precision: Precision) -> Mapping[str, float]:
    """The gates' limits for the demo's engines in a precision."""
    return GateLimits.of([precision], Bundle.open(demo / "bundle")).by_name


@pytest.mark.parametrize("target", ["cpu", "cpu-openvino"])
def test_fp32_payloads_are_equal_but_for_ties(compare: Compare, demo: Path, target: str) -> None:
    found = compare(target, "fp32")
    assert found.images == 320
    assert found.furthest_flip <= TIE_MARGIN
    assert found.same_answers == found.images
    assert found.smallest_cosine >= limits(demo, "fp32")["min-cosine"]
    assert found.largest_logit_difference < 1e-3


def test_int8_of_openvino_is_within_the_gates(compare: Compare, demo: Path) -> None:
    found = compare("cpu-openvino", "int8")
    allowed = limits(demo, "int8")
    assert found.images == 320
    assert found.flipped_percent <= allowed["max-flipped-percent"]
    assert found.same_answers_percent >= allowed["min-same-top1-percent"]
    assert found.smallest_cosine >= allowed["min-cosine"]


def test_int8_of_the_images_onnxruntime_is_refused(root: RootFolder, demo: Path, tmp_path: Path) -> None:
    arm = Arm(root, CORTEX_A76, demo, tmp_path)
    done = run(arm, "-m", "ccr_deploy", "build-engine", arm.demo / "bundle", "--target", "cpu", "--int8")
    assert done.returncode == 3
    assert "computes the INT8 graph wrongly: before 1.30 it truncates FP16 values" in done.stderr
