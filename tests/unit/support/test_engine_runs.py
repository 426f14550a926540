"""Which engines ran on a GPU, and when a run fails because none did."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import EngineError
from tests.support.engine_runs import GpuEngine, counted_runs, exit_status, summary

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

ENCODER = GpuEngine("onnxruntime-cuda", "encoder", "fp16")
CLASSIFIER = GpuEngine("onnxruntime-cuda", "classifier", "fp32")
PLAN = GpuEngine("tensorrt", "encoder", "int8")


@pytest.mark.parametrize(
    ("mark", "status", "runs", "expected"),
    [
        ("gpu", 0, {}, 1),
        ("gpu", 0, {ENCODER: 0}, 1),
        ("gpu", 0, {ENCODER: 1}, 0),
        ("gpu", 1, {ENCODER: 1}, 1),
        ("gpu", 5, {}, 5),  # no test was collected: pytest's own status says more
        ("not slow and not containers and not arm", 0, {}, 0),  # make test, on a machine without a GPU
    ],
)
def test_a_run_for_the_gpu_fails_if_no_engine_ran(
    mark: str, status: int, runs: dict[GpuEngine, int], expected: int
) -> None:
    assert exit_status(mark, status, runs) == expected


def test_the_summary_says_which_backend_ran_what() -> None:
    assert summary({PLAN: 3, ENCODER: 12, CLASSIFIER: 1}, None) == [
        "engines that ran:",
        "  onnxruntime-cuda: classifier fp32 (1 run), encoder fp16 (12 runs)",
        "  tensorrt: encoder int8 (3 runs)",
        "  tensorrt-rtx: none",
    ]


def test_the_summary_says_why_no_engine_ran() -> None:
    assert summary({}, "no GPU found") == ["no engine ran: no GPU found"]
    (line,) = summary({ENCODER: 0}, None)
    assert line.startswith("no engine ran: every test that runs one")


def test_successful_runs_are_counted(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    factory = EngineFactory(tiny_bundle, "cpu", built_store)
    runs: Counter[GpuEngine] = Counter()
    with counted_runs(runs, counts=lambda _: True), factory.load(factory.find("encoder")) as runner:
        images = np.zeros((2, 32, 48, 3), np.uint8)
        runner.infer({"image": images})
        runner.infer({"image": images})
        with pytest.raises(EngineError):
            runner.infer({"photo": images})
    assert runs == {GpuEngine("onnxruntime", "encoder", "fp32"): 2}


def test_engines_on_a_cpu_and_runs_outside_of_the_count_are_not_counted(
    tiny_bundle: Bundle, built_store: EngineStore
) -> None:
    factory = EngineFactory(tiny_bundle, "cpu", built_store)
    runs: Counter[GpuEngine] = Counter()
    images = {"image": np.zeros((1, 32, 48, 3), np.uint8)}
    with counted_runs(runs), factory.load(factory.find("encoder")) as runner:
        runner.infer(images)
    with counted_runs(runs, counts=lambda _: True):
        pass
    with factory.load(factory.find("encoder")) as runner:
        runner.infer(images)
    assert runs == {}
