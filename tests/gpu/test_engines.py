"""Engines on a GPU: parity, precision, caches, and the commands that use them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ccr_deploy.backends.base import EngineFile
from ccr_deploy.backends.onnxruntime.cuda import CudaOptions
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import CcrDeployError, EngineError
from ccr_deploy.workflow.build import build_engines
from ccr_deploy.workflow.golden import verify_golden
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tests.support.gpu_kit import GpuKit


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_gate_passes(kit: GpuKit, target: Path, engines: EngineStore, precision: str) -> None:
    check_gates(kit, "demo", str(target), engines, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_gate_passes_on_the_cuda_target(kit: GpuKit, engines: EngineStore, precision: str) -> None:
    cuda_library()
    for name in kit.names:
        check_gates(kit, name, "cuda", engines, precision)


def check_gates(kit: GpuKit, name: str, target: str, engines: EngineStore, precision: str) -> None:
    """Build a bundle's engines, and compare them with the kit's golden file, without PyTorch."""
    bundle = kit.bundle(name)
    build_engines(bundle, target, engines, ["encoder", "classifier"], precision=precision)
    report = verify_golden(bundle, target, engines, kit.golden(name), precision=precision)
    assert report.passed, [gate for gate in report.gates if not gate.passed]


def cuda_library() -> Any:
    """Return the backend of ONNX Runtime's CUDA provider; skip the test if it does not run here."""
    try:
        library = make_backend(CudaOptions())
        library.check_runs_here()
    except CcrDeployError as error:
        pytest.skip(str(error))
    return library


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_gives_the_same_codes(
    kit: GpuKit,
    target: Path,
    engines: EngineStore,
    schedule: str,
    real_crops: npt.NDArray[np.uint8],
) -> None:
    factory = EngineFactory(kit.bundle(), str(target), engines, {"encoder": "fp32"})
    reference = EngineFactory(kit.bundle(), "cpu", engines)
    with (
        factory.load(factory.build("encoder", schedule)[0]) as runner,
        reference.load(reference.build("encoder")[0]) as expected,
    ):
        images = {"image": real_crops[:256]}
        flipped = np.unpackbits(runner.infer(images)["code"] ^ expected.infer(images)["code"])
    assert flipped.mean() < 0.0005


def test_int8_is_executed_in_int8(kit: GpuKit, target: Path, engines: EngineStore) -> None:
    factory = EngineFactory(kit.bundle(), str(target), engines, {"encoder": "int8"})
    sidecar = factory.build("encoder")[0].sidecar
    executed = sidecar.build.executed_convolutions
    assert executed is not None
    assert sum(executed.values()) == sidecar.origin.convolutions
    assert executed["int8"]
    assert not executed["unknown"]
    assert sidecar.build.driver


def test_an_engine_for_another_gpu_is_refused(factory: EngineFactory) -> None:
    engine, _ = factory.build("encoder", rebuild=True)
    path = sidecar_path(engine.path)
    text = path.read_text()
    content = json.loads(text)
    content["key"]["device"] = "NVIDIA Elsewhere (compute capability 1.0)"
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(EngineError, match="its sidecar's device is NVIDIA Elsewhere"):
            factory.load(engine)
    finally:
        path.write_text(text)


def test_a_second_start_does_not_compile(
    kit: GpuKit, target: Path, tmp_path: Path, real_crops: npt.NDArray[np.uint8]
) -> None:
    """The first start writes TensorRT-RTX's runtime cache, the second reads it and does not change it."""
    if "rtx" not in target.name:
        pytest.skip("TensorRT compiles during the build")
    factory = EngineFactory(kit.bundle(), str(target), EngineStore(tmp_path / "engines"))
    engine, _ = factory.build("encoder")

    def start() -> tuple[bytes, int]:
        with factory.load(engine) as runner:
            runner.infer({"image": real_crops[:4]})
        (cache,) = engine.path.parent.glob("*.cache")
        return cache.read_bytes(), cache.stat().st_mtime_ns

    first = start()
    assert first[0]
    assert start() == first
    (cache,) = engine.path.parent.glob("*.cache")
    half = first[0][: len(first[0]) // 2]
    cache.write_bytes(half)  # a damaged cache is replaced
    assert len(start()[0]) > len(half)


def test_parallel_builds_share_a_timing_cache(kit: GpuKit, target: Path, tmp_path: Path) -> None:
    if "rtx" in target.name:
        pytest.skip("TensorRT-RTX has no timing cache")
    stores = [EngineStore(tmp_path / "engines")] * 2

    def built(number: int) -> Path:
        factory = EngineFactory(kit.bundle(), str(target), stores[number])
        return factory.build(("encoder", "classifier")[number])[0].path

    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(built, range(2)))
    assert all(path.exists() for path in paths)
    (cache,) = (tmp_path / "engines" / "caches").glob("timing.*.cache")
    assert cache.stat().st_size > 0


def test_build_compares_int8_with_fp16(kit: GpuKit, target: Path, engines: EngineStore) -> None:
    (built,) = build_engines(kit.bundle(), str(target), engines, ["encoder"], precision="int8")
    assert built.verdict is not None
    assert [entry.precision for entry in built.verdict.candidates] == ["fp16", "int8"]
    assert all(entry.timing is not None for entry in built.verdict.candidates)


def test_benchmark_compares_with_pytorch_on_this_gpu(kit: GpuKit, target: Path, engines: EngineStore) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    common = ("--target", target, "--engines", engines.path, "--rounds", "2", "--batch", "4", "--json")
    outcome = run("benchmark", kit.bundle().path, *common)
    assert (outcome.status, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)
    assert report["machine"]["gpu"] == str(find_gpu())
    names = {timing["candidate"] for timing in report["timings"]}
    assert {"PyTorch eager", "PyTorch FP16 CUDA graph"} <= names
    compiled = "torch.compile max-autotune"  # needs a C compiler
    assert compiled in names or any(reason.startswith(compiled) for reason in report["left_out"])
    assert any(name.endswith("plain") for name in names)
    assert all(timing["device_memory_mib"] > 0 for timing in report["timings"])
    if report["reliable"]:
        assert [entry["subject"] for entry in report["fastest_pytorch"]] == ["encoder", "classifier", "chain"]
    assert all(0 < timing["device_latency_ms_p50"] < timing["latency_ms_p99"] for timing in report["timings"])


def test_classify_runs_on_the_gpu(kit: GpuKit, target: Path, engines: EngineStore) -> None:
    bundle, common = kit.bundle().path, ("--target", target, "--engines", engines.path)
    assert run("build-engine", bundle, *common, "--fp16").status == 0
    image = next(kit.images.rglob("*.png"))
    (answer,) = json.loads(run("classify", image, "--bundle", bundle, *common, "--json").stdout)
    assert answer["answer"]


def test_the_cuda_provider_runs_every_operator_on_the_gpu(kit: GpuKit) -> None:
    """It refuses a graph if one operator would run on the CPU."""
    library = cuda_library()
    for bundle in map(kit.bundle, kit.names):
        for graph in bundle.manifest.graphs:
            if graph.precision in library.native_precisions():
                with library.load(EngineFile(bundle.file(graph.file), graph.precision)):
                    pass


def test_the_cuda_target_gives_the_codes_of_the_cpu(
    kit: GpuKit, engines: EngineStore, real_crops: npt.NDArray[np.uint8]
) -> None:
    cuda_library()
    images = {"image": real_crops[:64]}
    codes = []
    for target in ("cuda", "cpu"):
        factory = EngineFactory(kit.bundle(), target, engines, {"encoder": "fp32"})
        with factory.load(factory.build("encoder")[0]) as runner:
            codes.append(runner.infer(images)["code"])
    assert np.unpackbits(codes[0] ^ codes[1]).mean() < 0.0005
