"""The owner's side of the process of a scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.benchmarking.scenarios import process
from ccr_deploy.benchmarking.scenarios.messages import Engines, RunSoak
from ccr_deploy.benchmarking.scenarios.process import ScenarioProcess
from ccr_deploy.errors import EngineError


def test_engines_that_take_too_long_to_load_are_an_error_with_a_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "LOADING_SECONDS", 0)
    files = ((Path("encoder.onnx"), "fp32", "ab"),)
    engines = Engines(OnnxRuntimeOptions(), files, (), bytes(12), (1, 2, 2, 3))
    with ScenarioProcess(RunSoak(engines, 256, 1.0)) as started, pytest.raises(EngineError) as raised:
        started.started()
    assert str(raised.value) == (
        "the engines: no response within 0 s: choose a smaller --batch, or stop other work on this machine"
    )
