"""Accuracy and speed of one engine: swapped engines and wrong answers, planted and found by `benchmark`."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import onnx
import pytest

from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.engines.sidecar import read_sidecar, sidecar_path
from tests.support.cli_runner import run
from tests.support.faulty_runners import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.models.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("short_rounds")

ONE_THREAD = """
description = "one thread: several would wait for each other on a busy machine"
backend = "onnxruntime"
[options]
threads = 1
"""


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with two schedules and no baseline, so that few candidates are timed."""
    from ccr_deploy.export.exporter import export_bundle

    folder = tmp_path_factory.mktemp("bundle")
    return export_bundle(tiny_checkpoint, folder / "bundle", schedules=("iteration-major", "layer-major"))


@pytest.fixture(scope="module")
def verified(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a target, a store of its engines, and a report of `verify`. Copy it to modify it."""
    folder = tmp_path_factory.mktemp("verified")
    (folder / "target.toml").write_text(ONE_THREAD)
    arguments = (bundle.path, "--target", folder / "target.toml", "--engines", folder / "engines")
    assert run("build-engine", *arguments).status == 0
    assert run("verify", *arguments, "--report", folder / "report").status == 0
    return folder


@pytest.fixture
def workplace(verified: Path, tmp_path: Path) -> Path:
    shutil.copytree(verified, tmp_path / "work")
    return tmp_path / "work"


def benchmark(bundle: Bundle, workplace: Path, verified: Path, *options: str):
    # The same name of the target, which the record of the last build and the report belong to.
    target = ("--target", verified / "target.toml", "--engines", workplace / "engines")
    return run("benchmark", bundle.path, *target, "--rounds", "2", "--report", workplace / "report", *options)


def engine_of(workplace: Path, stage: str) -> Path:
    """Return the engine of a stage that was verified; others may have been built since then."""
    engines = json.loads((workplace / "report" / "verify.json").read_text())["engines"]
    (sha256,) = (engine["engine_sha256"] for engine in engines if engine["stage"] == stage)
    found = workplace.glob(f"engines/*/{stage}.fp32.onnx")
    return next(path for path in found if read_sidecar(path).engine_sha256 == sha256)


def replace_engine(engine: Path, content: bytes) -> str:
    """Write other bytes with a valid sidecar; return their SHA-256."""
    old = read_sidecar(engine).engine_sha256
    new = hashlib.sha256(content).hexdigest()
    engine.write_bytes(content)
    sidecar = sidecar_path(engine)
    changed = {**json.loads(sidecar.read_text()), "engine_bytes": len(content)}
    sidecar.write_text(json.dumps(changed).replace(old, new))
    return new


def with_a_comment(engine: Path) -> bytes:
    """Return an engine that computes the same, as other bytes."""
    model = onnx.load(engine)
    model.doc_string = "another build"
    return model.SerializeToString()


def test_an_engine_swapped_after_its_verification_is_not_joined(
    bundle: Bundle, workplace: Path, verified: Path
) -> None:
    engine = engine_of(workplace, "encoder")
    old = read_sidecar(engine).engine_sha256
    new = replace_engine(engine, with_a_comment(engine))
    measured = benchmark(bundle, workplace, verified)
    line = (
        f"accuracy and speed are not joined: the encoder engine that was verified has the SHA-256 "
        f"{old[:12]}…, the one that was timed {new[:12]}…: run ccr-deploy verify and benchmark again"
    )
    assert (measured.status, measured.stderr) == (0, f"ccr-deploy: warning: {line}\n")
    assert "payloads equal" not in measured.stdout
    page = (workplace / "report" / "report.html").read_text()
    assert f"Warning: {line}" in page
    assert "speed-up of the chain" not in page
    assert "latency of the chain" not in page
    text = (workplace / "report" / "report.md").read_text()
    summary = text.partition("## Engines compared with PyTorch eager")[2].partition("\n## ")[0]
    assert f"**{line}**" in summary
    assert "| encoder |" not in summary


def test_another_models_engine_has_wrong_answers(bundle: Bundle, workplace: Path, verified: Path) -> None:
    engine = engine_of(workplace, "encoder")
    model = onnx.load(engine)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            values = -onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    replace_engine(engine, model.SerializeToString())
    measured = benchmark(bundle, workplace, verified)
    assert measured.status == 0
    found = json.loads((workplace / "report" / "benchmark.json").read_text())
    wrong = "encoder: onnxruntime fp32 iteration-major: wrong answers while it was timed: "
    assert any(reason.startswith(wrong) for reason in found["unreliable_reasons"])
    assert {timing["speedup"] for timing in found["timings"]} == {None}


def test_a_candidate_with_wrong_answers_has_no_result(
    bundle: Bundle, workplace: Path, verified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tiring")
    monkeypatch.setattr(Worker, "module", "tests.support.faulty_process")
    assert benchmark(bundle, workplace, verified, "--rounds", "4").status == 0
    found = json.loads((workplace / "report" / "benchmark.json").read_text())
    reasons = " ".join(found["unreliable_reasons"])
    for subject in ("encoder: onnxruntime fp32 iteration-major", "classifier: onnxruntime fp32"):
        assert f"{subject}: wrong answers while it was timed" in reasons
    # The target's engines and PyTorch are kept, because there is no result without them.
    assert [timing["candidate"] for timing in found["timings"] if timing["subject"] == "encoder"] == [
        "PyTorch eager",
        "onnxruntime fp32 iteration-major",
    ]
    assert any("layer-major: wrong answers" in line for line in found["left_out"])
