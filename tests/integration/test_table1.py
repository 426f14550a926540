"""The paper's Table 1 with small models: exported, built and timed without a bundle."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.benchmarking.table1_results import Table1
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.reporting.table1_tables import table1_tables
from ccr_deploy.workflow.pytorch_variants import EAGER
from ccr_deploy.workflow.table1 import measure_table1
from tests.support.bundles import TINY, TINY_BASELINE

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MODELS = {
    "ccr-baseline": TINY_BASELINE,
    "ccr-layer1": replace(
        TINY, classifier=ClassifierConfig(cut="layer2", classes=5, stage_channels=(4,) * 4)
    ),
    "ccr-layer3": replace(
        TINY, classifier=ClassifierConfig(cut="layer3", classes=5, stage_channels=(4,) * 4)
    ),
}


def test_every_model_is_timed_in_every_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime runs FP16 graphs on a CPU too, in FP32: enough to build those of all models."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = measure_table1("cpu", rounds=2, models=MODELS, precisions=("fp32", "fp16"))

    runtimes = [(EAGER, "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16")]
    chains = [time for time in found.times if time.part == "chain"]
    assert [(time.model, time.runtime, time.precision) for time in chains] == [
        (model, *runtime) for model in MODELS for runtime in runtimes
    ]
    parts = [(time.model, time.part) for time in found.times if time.part != "chain"]
    assert parts == [
        (model, part)
        for model, part in (
            ("ccr-layer1", "encoder"),
            ("ccr-layer1", "classifier"),
            ("ccr-layer3", "classifier"),
        )
        for _ in ("fp32", "fp16")
    ]
    assert [model.model for model in found.models] == list(MODELS)
    assert convert(Table1, to_builtins(found)) == found
    assert [len(table.rows) for table in table1_tables(found)] == [9, 4, 3]
    assert list(tmp_path.iterdir()) == []
