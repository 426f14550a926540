"""Output and errors about GPUs, targets and engines, on a machine that may have no GPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.core.gpu_driver import find_driver
from ccr_deploy.targets.schema import target_files
from tests.support.cli_runner import run
from tests.support.gpu import gpu_is_there

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from tests.support.demo import CalibratedDemo

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")


without_gpu = pytest.mark.skipif(gpu_is_there(), reason="about machines without a GPU; this one has one")


def test_doctor_lists_every_target() -> None:
    outcome = run("doctor")
    assert (outcome.status, outcome.stderr) == (0, "")
    for name in target_files():
        assert f"\n{name}" in outcome.stdout
    found = json.loads(run("doctor", "--json").stdout)
    fits = {fit["target"]: fit for fit in found["targets"]}
    assert fits["cpu"]["build_obstacle"] is fits["cpu"]["run_obstacle"] is None
    assert fits["rtx"]["build_obstacle"] is None
    assert found["packages"]["tensorrt-rtx"]


@without_gpu
def test_without_a_gpu_doctor_prints_the_reason() -> None:
    found = json.loads(run("doctor", "--json").stdout)
    fits = {fit["target"]: fit for fit in found["targets"]}
    assert found["gpu"] is None
    if find_driver() is None:
        assert found["gpu_extras"] is None
        assert "extras for this GPU" not in run("doctor").stdout
    assert "no GPU found" in found["gpu_obstacle"]
    assert "no GPU found" in fits["rtx"]["run_obstacle"]
    assert "no GPU found" in fits["cuda"]["build_obstacle"]
    assert "found no GPU" in fits["pytorch-cuda"]["run_obstacle"]
    assert found["default_target"] == "cpu"


@without_gpu
def test_without_a_gpu_the_default_target_is_cpu_and_is_printed_first(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    outcome = run("build-engine", tiny_bundle.path, "--engines", tmp_path)
    first = outcome.stdout.splitlines()[0]
    assert first == (
        "target: cpu, the default because no GPU target fits this machine (see ccr-deploy doctor): "
        "ONNX Runtime on this machine's CPU"
    )


@without_gpu
@pytest.mark.parametrize(
    "target", ["h200", "l4", "jetson-orin-jp6", "jetson-orin-jp7", "jetson-thor", "cuda"]
)
def test_a_gpu_target_is_refused_without_a_gpu(
    calibrated_demo: CalibratedDemo, tmp_path: Path, target: str
) -> None:
    bundle = calibrated_demo.bundle.path
    outcome = run("build-engine", bundle, "--target", target, "--engines", tmp_path / "engines")
    assert outcome.status in {2, 3}
    assert "no GPU found" in outcome.error_line or "tensorrt" in outcome.error_line
    assert not (tmp_path / "engines").exists()


@without_gpu
def test_rtx_is_built_without_a_gpu_and_not_timed(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    common = ("--target", "rtx", "--engines", tmp_path / "engines")
    bundle = calibrated_demo.bundle.path
    outcome = run("build-engine", bundle, *common, "--int8")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "encoder int8 iteration-major: tensorrt-rtx " in outcome.stdout
    assert "MiB on the host, " in outcome.stdout
    assert "INT8 was not timed: this machine cannot run the engine" in outcome.stdout
    assert "INT8 accuracy: " in outcome.stdout  # the bundle's record
    for command in (("verify", bundle), ("benchmark", bundle), ("build-engine", bundle, "--auto")):
        refused = run(*command, *common)
        assert refused.status == 3
        assert "no GPU found" in refused.error_line
    assert "reused from the engine store" in run("build-engine", bundle, *common, "--int8").stdout
    again = run("build-engine", bundle, *common, "--int8", "--no-cache")
    assert again.stdout.count("built in ") == 2


def test_a_target_s_own_precisions_are_built_stage_by_stage(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    target = tmp_path / "mixed.toml"
    shipped = target_files()["rtx"].read_text(encoding="utf-8")
    target.write_text(shipped.replace('encoder = "fp16"', 'encoder = "int8"'), encoding="utf-8")
    common = ("--target", target, "--engines", tmp_path / "engines", "--json")
    outcome = run("build-engine", calibrated_demo.bundle.path, *common)
    engines = json.loads(outcome.stdout)
    assert [engine["key"]["precision"] for engine in engines] == ["int8", "fp16"]
    encoder = engines[0]["origin"]
    assert encoder["resolved_target"]["batch"] == {"sizes": [1, 8, 32, 64], "dynamic": False}
    assert 0 < encoder["quantized_convolutions"] < encoder["convolutions"]


def test_int8_of_a_bundle_without_int8_names_the_workstation_s_command(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    outcome = run("build-engine", tiny_bundle.path, "--target", "rtx", "--int8", "--engines", tmp_path)
    assert outcome.status == 2
    assert "run ccr-deploy calibrate" in outcome.error_line


def test_inspect_shows_an_engine(calibrated_demo: CalibratedDemo, tmp_path: Path) -> None:
    common = ("--target", "rtx", "--engines", tmp_path, "--stage", "encoder", "--int8", "--json")
    (engine,) = json.loads(run("build-engine", calibrated_demo.bundle.path, *common).stdout)
    outcome = run("inspect", engine["path"])
    assert (outcome.status, outcome.stderr) == (0, "")
    origin = engine["origin"]
    quantized = f"{origin['quantized_convolutions']} of {origin['convolutions']}"
    assert f"convolutions quantized in the graph: {quantized}" in outcome.stdout
    assert (
        f"convolutions executed by the engine: {origin['quantized_convolutions']} in INT8" in outcome.stdout
    )
    assert "batch 1, 8, 32, 64" in outcome.stdout
    assert engine["engine_sha256"] in outcome.stdout


def test_inspect_refuses_other_files(tmp_path: Path) -> None:
    missing = run("inspect", tmp_path / "none.plan")
    assert missing.status == 2
    assert "none.plan: no such file" in missing.error_line
    (tmp_path / "photo.png").write_bytes(b"a photo")
    assert "photo.png: neither a payload nor an engine" in run("inspect", tmp_path / "photo.png").error_line
    (tmp_path / "cut.ccr").write_bytes(b"CCRP\1\0")
    assert "cut.ccr: truncated: 6 bytes" in run("inspect", tmp_path / "cut.ccr").error_line


def test_inspect_shows_a_payload(tiny_bundle: Bundle, tmp_path: Path) -> None:
    import numpy as np

    contract = tiny_bundle.manifest.contract
    path = tmp_path / "photo.ccr"
    path.write_bytes(encode_payload(np.zeros(contract.code_bytes, np.uint8), contract))
    outcome = run("inspect", path)
    assert outcome.stdout.startswith(
        f"payload of contract {contract.contract_id}: 32x48 pixels, 12 code bytes"
    )
    assert json.loads(run("inspect", path, "--json").stdout)["contract_id"] == contract.contract_id
    refused = run("inspect", path, "--reproduce")
    assert refused.status == 2
    assert "--reproduce needs an engine" in refused.stderr
