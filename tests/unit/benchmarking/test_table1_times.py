"""Reductions against the baseline, and the paper's figures."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.benchmarking.table1_times import ModelTiming, reduction_percent, table1_times
from ccr_deploy.core.metrics import Interval
from ccr_deploy.models.presets import PAPER_PRESETS
from tests.support.benchmark_runs import timing

EAGER = "PyTorch eager"


def timed(model: str, runtime: str, milliseconds: float, part="chain", precision="fp32") -> ModelTiming:
    samples = milliseconds * np.random.default_rng(0).normal(1.0, 0.01, (5, 4))
    found = timing(runtime, samples, latency_ms_p50_interval=Interval(milliseconds, milliseconds))
    return ModelTiming(model, part, runtime, precision, found)


RUN = [
    timed("ccr-baseline", EAGER, 4000),
    timed("ccr-baseline", "onnxruntime", 2000),
    timed("ccr-baseline", "onnxruntime", 1000, precision="fp16"),
    timed("ccr-layer1", EAGER, 200),
    timed("ccr-layer1", "onnxruntime", 100),
    timed("ccr-layer1", "onnxruntime", 80, precision="fp16"),
    timed("ccr-layer1", "onnxruntime", 90, part="encoder"),
]


def test_reductions_are_against_the_same_runtime_and_precision() -> None:
    found = table1_times(RUN, "ccr-baseline", EAGER, reliable=True)
    reductions = [time.reduction_percent for time in found]
    assert reductions == [None, None, None, *(pytest.approx(value) for value in (95, 95, 92)), None]
    for time in found[3:6]:
        assert time.reduction_percent_interval
        assert time.reduction_percent_interval.low <= time.reduction_percent  # type: ignore[operator]
        assert time.reduction_percent <= time.reduction_percent_interval.high  # type: ignore[operator]


def test_all_but_the_eager_baseline_are_compared_with_it() -> None:
    found = table1_times(RUN, "ccr-baseline", EAGER, reliable=True)
    reductions = [time.reduction_from_eager_percent for time in found]
    assert reductions == [None, *(pytest.approx(value) for value in (50, 75, 95, 97.5, 98)), None]


def test_an_unreliable_run_has_times_and_no_reductions() -> None:
    found = table1_times(RUN, "ccr-baseline", EAGER, reliable=False)
    assert all(time.reduction_percent is None for time in found)
    assert all(time.reduction_from_eager_percent is None for time in found)
    assert [time.latency_ms_p50 for time in found] == [entry.timing.latency_ms_p50 for entry in RUN]


def test_the_paper_has_a_row_for_each_preset() -> None:
    assert tuple(PAPER_TABLE_1) == PAPER_PRESETS
    assert all(row.model == name for name, row in PAPER_TABLE_1.items())


def test_the_printed_reductions_are_near_those_of_the_printed_times() -> None:
    """They are 44.4, 73.4 and 79.0 %; the paper prints 43, 74 and 79 %."""
    baseline = PAPER_TABLE_1["ccr-baseline"]
    assert baseline.reduction_percent is None
    computed = [reduction_percent(baseline.time_ms, row.time_ms) for row in PAPER_TABLE_1.values()][1:]
    printed = [row.reduction_percent for row in PAPER_TABLE_1.values()][1:]
    assert [round(value, 1) for value in computed] == [44.4, 73.4, 79.0]
    assert printed == [43, 74, 79]
    assert printed == pytest.approx(computed, abs=1.5)
