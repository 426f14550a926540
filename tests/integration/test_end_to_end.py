"""The chain from image file to label, in processes of its own, through the library that a product calls."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.benchmarking.stage_results import EndToEnd
from ccr_deploy.benchmarking.step_times import STEPS
from ccr_deploy.codec.payload import OVERHEAD_BYTES
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.errors import EngineError, ImageError
from ccr_deploy.reporting.stage_tables import stage_tables
from ccr_deploy.workflow import benchmark, end_to_end
from ccr_deploy.workflow.benchmark import benchmark_bundle
from ccr_deploy.workflow.end_to_end import measure_end_to_end
from ccr_deploy.workflow.engines import compared_factory

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.engines.store import EngineStore

QUICK = (0.05, 0.1)
"""Seconds of the measurement of energy."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def factory(tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> EngineFactory:
    """The factory of the measured engines; fewer processes are started than by the command."""
    monkeypatch.setattr(end_to_end, "STARTS", 2)
    return compared_factory(tiny_bundle, "cpu", built_store)


def test_every_step_is_timed_and_adds_up(factory: EngineFactory, temporary: Path) -> None:
    found, observed = measure_end_to_end(factory, rounds=2, energy_seconds=QUICK)
    assert [time.step for time in found.steps] == list(STEPS)
    steps = np.array([time.samples_ms for time in found.steps])
    assert np.allclose(steps.sum(axis=0), found.sum.samples_ms)
    assert np.array(found.chain.samples_ms).shape == steps.shape[1:]
    assert found.unaccounted_ms == pytest.approx(found.chain.latency_ms_p50 - found.sum.latency_ms_p50)
    assert observed.phase == "chain from file to label"

    manifest = factory.bundle.manifest
    assert found.image_count == len(manifest.samples)
    assert found.image_bytes.payload == manifest.contract.code_bytes + OVERHEAD_BYTES
    assert found.image_bytes.pixels == 32 * 48 * 3
    assert found.peak_memory_mib > 10
    assert found.device_memory_mib is None

    start = found.start_up
    assert len(start.total_ms) == end_to_end.STARTS
    parts = zip(start.imports_ms, start.load_ms, start.first_answer_ms, strict=True)
    assert [sum(part) for part in parts] == pytest.approx(list(start.total_ms))
    assert min(start.imports_ms) > 0

    assert (found.energy.source is None) == bool(found.energy.reason)
    assert convert(EndToEnd, to_builtins(found)) == found
    assert len(stage_tables(found)) == 3
    assert list(temporary.iterdir()) == []


def test_own_images_are_read(factory: EngineFactory, tmp_path: Path) -> None:
    folder = tmp_path / "camera"
    (folder / "day").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "day" / "photo.jpg")
    found, _ = measure_end_to_end(factory, rounds=2, images=folder, energy_seconds=QUICK)
    assert found.images == f"1 image files of {folder}"
    assert found.image_bytes.file == (folder / "day" / "photo.jpg").stat().st_size


def test_an_image_that_cannot_be_decoded_is_named(
    factory: EngineFactory, temporary: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff no image")
    with pytest.raises(EngineError, match=r"photo\.jpg"):
        measure_end_to_end(factory, rounds=2, images=folder, energy_seconds=QUICK)
    with pytest.raises(ImageError, match="no such folder"):
        measure_end_to_end(factory, rounds=2, images=tmp_path / "missing", energy_seconds=QUICK)
    assert list(temporary.iterdir()) == []


def test_a_process_that_fails_at_its_start_is_reported(
    factory: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "FIRST_ANSWER", "ccr_deploy.no_such_module")
    with pytest.raises(EngineError, match=r"a new process failed: .*no_such_module"):
        measure_end_to_end(factory, rounds=2, energy_seconds=QUICK)


def test_images_are_checked_before_the_benchmark(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "benchmark_candidates", lambda *_: pytest.fail("the benchmark started"))
    with pytest.raises(ImageError, match="no such folder"):
        benchmark_bundle(
            tiny_bundle, "cpu", built_store, rounds=1, end_to_end=True, images=tmp_path / "missing"
        )


def test_a_failure_after_the_rounds_does_not_lose_them(
    tiny_bundle: Bundle, own_store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = benchmark.benchmark_candidates
    monkeypatch.setattr(
        benchmark, "benchmark_candidates", lambda *given: {"encoder": find(*given)["encoder"][:2]}
    )
    pixels = np.zeros((96, 120, 3), np.uint8)
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(pixels).save(images / "0.jpg")
    (images / "1.jpg").write_bytes(b"not an image")
    report = benchmark_bundle(tiny_bundle, "cpu", own_store, rounds=1, end_to_end=True, images=images)
    assert report.timings
    assert report.end_to_end is None
    (reason,) = (reason for reason in report.left_out if reason.startswith("--end-to-end: "))
    assert "1.jpg" in reason
