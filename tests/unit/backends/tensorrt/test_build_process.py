"""What a build does with the answer of TensorRT's engine inspector, which only a GPU gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.kernels import executed_convolutions
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt import build_process
from ccr_deploy.backends.tensorrt.build_process import _check_executed, _inspected
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import TensorRtOptions
from ccr_deploy.core.gpu import Gpu
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from ccr_deploy.core.precisions import EnginePrecision

LAYERS = Path(__file__).parent / "layers"
NAMES = ["stem", "cell1/input_conv", "cell1/t1/hidden_conv"]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that holds the inspector's answer: on a machine with a GPU, TensorRT gives it."""
    answers: list[str] = []
    monkeypatch.setattr(build_process, "inspect", lambda _library, _plan: answers[-1])
    monkeypatch.setattr(build_process, "find_gpu", lambda: Gpu("NVIDIA L4", "8.9", 23034, "580.65"))
    return answers


def request_for(folder: Path, precision: EnginePrecision, batch: Batch) -> BuildRequest:
    return BuildRequest(
        graph=folder / "encoder.onnx",
        engine=folder / "encoder.plan",
        options=TensorRtOptions(),
        precision=precision,
        batch=batch,
        input_shapes={"image": (48, 48, 3)},
        timing_cache=None,
        can_run=True,
    )


def test_the_inspectors_kernels_are_those_of_the_batch_profiles(answer: list[str], tmp_path: Path) -> None:
    answer.append((LAYERS / "tensorrt-11.4-int8-batch8.json").read_text())
    listings = _inspected(request_for(tmp_path, "int8", Batch(sizes=(8,))), None, b"plan", NAMES)
    assert listings is not None
    assert [(listing.batch, listing.devices) for listing in listings] == [
        (8, ("NVIDIA L4 (compute capability 8.9)",))
    ]
    assert (tmp_path / "encoder.plan.layers.json").read_text() == answer[-1]


def test_a_dynamic_batch_has_no_number(answer: list[str], tmp_path: Path) -> None:
    answer.append((LAYERS / "tensorrt-10.3-int8-dynamic.json").read_text())
    listings = _inspected(request_for(tmp_path, "int8", Batch((32,), dynamic=True)), None, b"plan", NAMES)
    assert listings is not None
    assert [listing.batch for listing in listings] == [None]


def test_an_answer_that_cannot_be_read_is_an_error_only_for_int8(answer: list[str], tmp_path: Path) -> None:
    answer.append("{}")
    assert _inspected(request_for(tmp_path, "fp16", Batch()), None, b"plan", NAMES) is None
    with pytest.raises(EngineError, match="inspector's output cannot be read"):
        _inspected(request_for(tmp_path, "int8", Batch()), None, b"plan", NAMES)


def test_without_details_every_precision_is_unknown(answer: list[str], tmp_path: Path) -> None:
    """The engine is not refused: `unverified_line` reports it."""
    answer.append(json.dumps({"Layers": NAMES}))
    listings = _inspected(request_for(tmp_path, "int8", Batch()), None, b"plan", NAMES)
    assert listings == ()
    executed = executed_convolutions(listings, NAMES)
    assert executed == {"fp32": 0, "fp16": 0, "int8": 0, "unknown": 3}
    _check_executed("int8", executed, NAMES)


def test_an_int8_engine_that_executes_none_in_int8_is_refused() -> None:
    executed = {"int8": 0, "fp16": 2, "fp32": 1, "unknown": 0}
    with pytest.raises(EngineError, match="executes none of 3 convolutions in INT8: 2 in FP16, 1 in FP32"):
        _check_executed("int8", executed, NAMES)
    _check_executed("fp16", executed, NAMES)
