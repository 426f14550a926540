"""The system under test, with stand-ins for the engines that record their batches."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.benchmarking.inputs import FRESH, REPEATED
from ccr_deploy.benchmarking.scenarios import under_test
from ccr_deploy.benchmarking.scenarios.messages import Engines
from ccr_deploy.benchmarking.scenarios.under_test import ROUNDS, RUNS_PER_ROUND, SystemUnderTest

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
BATCH = 256


class Recording(Runner):
    """Returns the first value of each image, and records the sizes of the batches."""

    inputs = (TensorSpec("image", "uint8", (None, 2, 2, 3)),)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def _run(self, feeds: Arrays) -> Outputs:
        self.batches.append(len(feeds["image"]))
        return {"code": feeds["image"][:, 0, 0, :1]}

    def _close(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Recording:
    runner = Recording()
    monkeypatch.setattr(under_test, "load_engine", lambda *_, **__: runner)
    return runner


@pytest.fixture
def system(engine: Recording) -> SystemUnderTest:
    files = ((Path("encoder.onnx"), "fp32", "ab"),)
    engines = Engines(OnnxRuntimeOptions(), files, (), IMAGES.tobytes(), IMAGES.shape)
    return SystemUnderTest(engines, BATCH, ExitStack())


def test_inputs_are_timed_one_at_a_time_however_large_the_batch_is(
    system: SystemUnderTest, engine: Recording
) -> None:
    rounds = system.time_inputs(seconds=10.0)
    assert [sorted(set(times.inputs)) for times in rounds] == [sorted({REPEATED, FRESH})] * ROUNDS
    assert engine.batches == [1] * ROUNDS * (1 + RUNS_PER_ROUND[0])


def test_the_answers_for_the_pool_are_those_for_each_image(
    system: SystemUnderTest, engine: Recording
) -> None:
    answers = system.pool_answers()
    assert engine.batches == [len(IMAGES)]
    assert [answer.items for answer in answers] == [(item,) for item in range(len(IMAGES))]
    assert [answer.outputs[0].array().item() for answer in answers] == IMAGES[:, 0, 0, 0].tolist()
