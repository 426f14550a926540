"""The paper's Table 1 with small models: exported, built and timed without a bundle."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.benchmarking.table1_results import Table1
from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.reporting.table1_tables import table1_tables
from ccr_deploy.workflow.pytorch_variants import EAGER
from ccr_deploy.workflow.table1 import Preparation, measure_table1
from tests.support.bundles import TINY, TINY_BASELINE
from tests.support.faulty_runners import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    "ccr-baseline": TINY_BASELINE,
    "ccr-layer1": TINY,
    "ccr-layer3": replace(
        TINY, classifier=ClassifierConfig(cut="layer3", classes=5, stage_channels=(4,) * 4)
    ),
}
ONE_THREAD = 'description = "one thread"\nbackend = "onnxruntime"\noptions = { threads = 1 }\n'
"""A target whose candidates need no second core, so that other work on this machine delays them little."""


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "one-thread.toml").write_text(ONE_THREAD)
    return str(tmp_path / "one-thread.toml")


def test_engines_of_every_model_are_built_in_every_precision(target: str, tmp_path: Path) -> None:
    """ONNX Runtime builds FP16 graphs on a CPU too, also that of the conventional chain."""
    found = Preparation(target, tmp_path, ("fp32", "fp16")).timed_models(MODELS, SILENT)
    assert [(entry.model, entry.part, entry.runtime, entry.precision) for entry in found] == [
        *chain("ccr-baseline"),
        *chain("ccr-layer1"),
        *part("ccr-layer1", "encoder"),
        *part("ccr-layer1", "classifier"),
        *chain("ccr-layer3"),
        *part("ccr-layer3", "classifier"),
    ]
    assert len({entry.candidate.name for entry in found}) == len(found)
    assert all(path.is_file() for entry in found for path, _ in entry.candidate.engines)


@pytest.mark.usefixtures("short_rounds")
def test_models_are_timed_and_nothing_is_left_behind(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models = {name: MODELS[name] for name in ("ccr-baseline", "ccr-layer1")}
    found = measure_table1(target, rounds=2, models=models)
    assert [(time.model, time.part, time.runtime) for time in found.times] == [
        ("ccr-baseline", "chain", EAGER),
        ("ccr-baseline", "chain", "onnxruntime"),
        ("ccr-layer1", "chain", EAGER),
        ("ccr-layer1", "chain", "onnxruntime"),
        ("ccr-layer1", "encoder", "onnxruntime"),
        ("ccr-layer1", "classifier", "onnxruntime"),
    ]
    assert all(len(time.samples_ms) == 2 for time in found.times)
    for time in found.times:
        assert time.answers
        assert (time.answers.passed, time.answers.images) == (True, 2)
        assert time.fresh_input_ratio is not None
    assert found.left_out == ("FP16: ONNX Runtime does not compute in FP16 on this device",)
    assert [model.model for model in found.models] == list(models)
    assert convert(Table1, to_builtins(found)) == found
    assert [len(table.rows) for table in table1_tables(found)] == [4, 1, 2]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("fault", ["caching", "tiring"])
def test_faulty_engines_are_found(fault: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, fault)
    monkeypatch.setattr(Worker, "module", "tests.support.faulty_process")
    models = {name: MODELS[name] for name in ("ccr-baseline", "ccr-layer1")}
    found = measure_table1(target, rounds=5, models=models)
    words = {"caching": "may cache its answers", "tiring": "wrong answers while it was timed"}[fault]
    engines = [
        f"{time.part}: {time.model} {time.part}, {time.runtime} "
        for time in found.times
        if time.runtime != EAGER
    ]
    reasons = [reason for reason in found.unreliable_reasons if words in reason]
    for engine in engines:
        assert any(reason.startswith(engine) for reason in reasons)
    if fault == "tiring":  # how long PyTorch takes for fresh inputs depends on this machine's load
        assert not any(EAGER in reason for reason in reasons)
    assert all(time.reduction_percent is None for time in found.times)


def test_pytorch_is_no_target() -> None:
    with pytest.raises(WrongUsageError, match="which is timed anyway"):
        measure_table1("pytorch")


def chain(model: str) -> list[tuple[str, str, str, str]]:
    return [(model, "chain", EAGER, "fp32"), *part(model, "chain")]


def part(model: str, name: str) -> list[tuple[str, str, str, str]]:
    return [(model, name, "onnxruntime", precision) for precision in ("fp32", "fp16")]
