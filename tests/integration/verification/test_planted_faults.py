"""Every fault that is planted for real is found: its step, its stage and its cause."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from benchmarks.planting import TARGET, planted, verify_planted, verify_saturated, write_answered_images
from benchmarks.plants import IN_ENGINE, PLANTS
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.workflow.golden import export_golden, verify_golden
from ccr_deploy.workflow.verify import verify_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.plants import Plant
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.verification.results import VerificationReport
    from tests.support.demo import CalibratedDemo
    from tests.support.workers import Shared


@pytest.fixture(scope="session")
def answered_images(calibrated_demo: CalibratedDemo, shared: Shared) -> Path:
    """Images whose folders are named by the class that the briefly trained model gives them."""

    def write(folder: Path) -> Path:
        write_answered_images(calibrated_demo.bundle, calibrated_demo.folder / "images", folder)
        return folder / "images"

    return shared.made_once("answered", write)


def found(report: VerificationReport) -> list[tuple[str, str, str]]:
    return [(finding.step, finding.stage, finding.cause) for finding in report.findings]


IN_GRAPHS = [plant for plant in PLANTS if plant.edit]
(SHUFFLED_CLASS_LIST,) = (plant for plant in PLANTS if not plant.edit)


@pytest.mark.parametrize("plant", IN_GRAPHS, ids=lambda plant: f"{plant.fault}, {plant.where}")
def test_fault_is_named(plant: Plant, calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    report = verify_planted(calibrated_demo.bundle, plant, calibrated_demo.folder / "images", tmp_path)
    assert found(report) == [(plant.step, plant.stage, plant.cause)]
    assert not report.passed


def test_shuffled_class_list_is_named(
    calibrated_demo: CalibratedDemo, answered_images: Path, tmp_path: Path
) -> None:
    report = verify_planted(calibrated_demo.bundle, SHUFFLED_CLASS_LIST, answered_images, tmp_path)
    assert found(report) == [("pytorch", "class names", "shuffled-classes")]
    # The engines agree with the checkpoint.
    assert report.passed


@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="only x86 adds INT8 products in 16 bits"
)
def test_saturated_int8_is_named(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    report = verify_saturated(calibrated_demo.bundle, calibrated_demo.folder / "images", tmp_path)
    assert found(report) == [("engine", "classifier", "int8-saturation")]
    assert "8-bit weights" in report.findings[0].evidence


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_healthy_engines_have_no_findings(
    precision: EnginePrecision, calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path)
    target = "cpu" if precision != "fp16" else "cpu-openvino"
    factory = EngineFactory(calibrated_demo.bundle, target, store, stage_precisions(precision))
    if precision not in factory.backend.native_precisions():
        pytest.skip(f"this processor has no {precision.upper()}")
    for stage in ("encoder", "classifier"):
        factory.build(stage)
    report = verify_bundle(
        calibrated_demo.bundle,
        target,
        store,
        precision=precision,
        images=calibrated_demo.folder / "images",
        samples=64,
    )
    assert report.passed
    assert report.findings == ()


def test_healthy_labels_have_no_findings(
    calibrated_demo: CalibratedDemo, answered_images: Path, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path)
    factory = EngineFactory(calibrated_demo.bundle, TARGET, store)
    for stage in ("encoder", "classifier"):
        factory.build(stage)
    report = verify_bundle(calibrated_demo.bundle, TARGET, store, precision="fp32", images=answered_images)
    assert report.accuracies[0].top1_percent == 100
    assert report.findings == ()


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("BGR for RGB", "bgr"),
        # T and normalisation can only be told by a reference that runs.
        ("T - 1 iterations", "unknown"),
    ],
)
def test_without_pytorch(fault: str, cause: str, calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    plant = next(plant for plant in PLANTS if (plant.fault, plant.where) == (fault, IN_ENGINE))
    store = EngineStore(tmp_path / "engines")
    golden = tmp_path / "demo.golden"
    export_golden(calibrated_demo.bundle, golden, store, images=calibrated_demo.folder / "images")
    bundle = planted(calibrated_demo.bundle, plant, tmp_path / "bundle", store)
    report = verify_golden(bundle, TARGET, store, golden, precision="fp32")
    assert found(report) == [("engine", "encoder", cause)]
