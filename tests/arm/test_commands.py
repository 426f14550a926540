"""Commands of a device on an emulated Arm: doctor, inspect, serve."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tritonclient.http

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from tests.arm.processors import AUXILIARY_BITS, CORTEX_A72, CORTEX_A76, PROCESSORS, Processor
from tests.arm.sides import Arm, ccr_deploy, run, succeed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.arm.reference import Reference
    from tests.arm.root_folder import RootFolder

pytestmark = pytest.mark.arm

AUXILIARY_VECTOR = """
import ctypes
library = ctypes.CDLL(None)
library.getauxval.restype = ctypes.c_ulong
print(library.getauxval(16))
"""


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda entry: entry.qemu_name)
def test_cpuinfo_has_the_processor_that_qemu_emulates(
    root: RootFolder, demo: Path, tmp_path: Path, processor: Processor
) -> None:
    arm = Arm(root, processor, demo, tmp_path)
    bits = int(succeed(run(arm, "-c", AUXILIARY_VECTOR)))
    emulated = {name for name, bit in AUXILIARY_BITS.items() if bits >> bit & 1}
    assert emulated == set(AUXILIARY_BITS) & set(processor.features.split())


@pytest.mark.parametrize(
    ("processor", "instruction_sets"),
    [(CORTEX_A76, "FP16 DotProd"), (CORTEX_A72, "unknown instruction sets")],
)
def test_doctor_finds_the_arm_processor_and_its_targets(
    root: RootFolder, demo: Path, tmp_path: Path, processor: Processor, instruction_sets: str
) -> None:
    found = ccr_deploy(Arm(root, processor, demo, tmp_path), "doctor")
    part = f"{processor.midr >> 4 & 0xFFF:#05x}"
    assert found["processor"] == f"implementer 0x41 part {part} (aarch64), {instruction_sets}"
    assert found["int8_weights"] == "INT8 with 8-bit weights: aarch64 adds INT8 products in 32 bits"
    runs = {target["target"] for target in found["targets"] if not target["run_obstacle"]}
    assert runs == {"cpu", "cpu-openvino"}


def test_onnxruntime_finds_its_processor(root: RootFolder, demo: Path, tmp_path: Path) -> None:
    done = run(Arm(root, CORTEX_A76, demo, tmp_path), "-c", "import onnxruntime")
    assert (done.returncode, done.stderr) == (0, "")


def test_inspect_shows_an_engine_and_a_payload(
    root: RootFolder, demo: Path, reference: Reference, tmp_path: Path
) -> None:
    arm = Arm(root, CORTEX_A76, demo, tmp_path)
    encoder, _ = ccr_deploy(arm, "build-engine", arm.demo / "bundle", "--target", "cpu")
    inspected = ccr_deploy(arm, "inspect", encoder["path"])
    assert "(aarch64)" in json.dumps(inspected)
    payload = min(reference.fp32.payloads.rglob("*.ccr"))
    (tmp_path / "one.ccr").write_bytes(payload.read_bytes())
    sent = ccr_deploy(arm, "inspect", arm.inside / "one.ccr")
    assert sent["code_bytes"] == reference.fp32.codes.shape[1]


def test_an_engine_of_this_machine_is_not_used(
    root: RootFolder, demo: Path, reference: Reference, tmp_path: Path
) -> None:
    arm = Arm(root, CORTEX_A76, demo, reference.fp32.payloads.parent)
    done = run(
        arm,
        "-m",
        "ccr_deploy",
        "classify",
        "--bundle",
        arm.demo / "bundle",
        "--target",
        "cpu",
        arm.demo / "images",
    )
    assert done.returncode == 2, done.stderr


def test_serve_answers_a_real_client(
    root: RootFolder, demo: Path, reference: Reference, tmp_path: Path
) -> None:
    arm = Arm(root, CORTEX_A76, demo, tmp_path)
    bundle = arm.demo / "bundle"
    ccr_deploy(arm, "build-engine", bundle, "--target", "cpu")
    ports = ("--http-port", "0", "--grpc-port", "0")
    serve = arm.command("-m", "ccr_deploy", "serve", bundle, "--target", "cpu", "--json", *ports)
    with started(serve, env=arm.environment(), stdout=subprocess.PIPE) as server:
        assert server.stdout
        listening = json.loads(server.stdout.readline())
        assert json.loads(server.stdout.readline())["event"] == "ready"
        address = f"127.0.0.1:{listening['http_port']}"
        with tritonclient.http.InferenceServerClient(address, network_timeout=PATIENCE_SECONDS) as client:
            codes = reference.fp32.codes[:3]
            tensor = tritonclient.http.InferInput("code", list(codes.shape), "UINT8")
            tensor.set_data_from_numpy(codes)
            answer = client.infer("classifier", [tensor])
        labels = [label.decode() for label in answer.as_numpy("label")]
        logits = answer.as_numpy("logits")
    assert labels == reference.fp32.answers[:3]
    np.testing.assert_allclose(logits, reference.fp32.logits[:3], atol=1e-3)
