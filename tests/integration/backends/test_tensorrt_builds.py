"""TensorRT-RTX engines, built with the real parser and builder, which need no GPU."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest
import torch
from msgspec import structs
from onnx import TensorProto, helper

from benchmarks.hosts.processes import PATIENCE_SECONDS, heirs, started
from ccr_deploy.backends.build_facts import log_path
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError, WrongUsageError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.export.to_onnx import to_onnx
from ccr_deploy.export.uint8_io import EncoderGraph
from ccr_deploy.export.unroll import unroll
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS
from ccr_deploy.models.presets import preset
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.fp16 import cast
from ccr_deploy.quantization.int8 import to_int8
from ccr_deploy.quantization.quantizers import layers, quantized_activations
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.quantization.table import StageTable, TensorRange
from ccr_deploy.workflow.calibrate import calibrate_bundle
from ccr_deploy.workflow.graphs import load_model
from ccr_deploy.workflow.inspect import reproduce
from tests.support.cli_runner import run
from tests.support.gpu import gpu_is_there

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.core.progress import Advance
    from tests.support.demo import CalibratedDemo

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

PRECISIONS = ("fp32", "fp16", "int8")
OPTIONS = RtxOptions(compute_capabilities=("8.6", "12.0"))
TARGET = """
description = "small"
backend = "tensorrt-rtx"
[batch]
classifier = [1, 8]
[options]
compute_capabilities = ["8.6"]
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TARGET)
    return path


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("rtx"))


@pytest.fixture(scope="module", params=["ccr-layer1", "ccr-layer2", "ccr-layer3"])
def calibrated_preset(
    request: pytest.FixtureRequest, calibrated_demo: CalibratedDemo, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """Return a preset at the demo's image size and T = 2; only one has all schedules."""
    config = structs.replace(preset(request.param), image_height=48, image_width=48, iterations=2)
    schedules = SCHEDULES if request.param == "ccr-layer1" else ("iteration-major",)
    folder = tmp_path_factory.mktemp(request.param)
    images = folder / "images"  # no classes, and all used for calibration: accuracy is not measured
    images.mkdir()
    for number, path in enumerate(sorted(calibrated_demo.images.rglob("*.png"))[:8]):
        (images / f"{number}.png").write_bytes(path.read_bytes())
    checkpoint = untrained_checkpoint(config)
    exported = export_bundle(
        checkpoint,
        folder / "bundle",
        schedules=schedules,
        images=images,
        converters=CONVERTERS,
    )
    return calibrate_bundle(exported, images, CalibrationRecipe(samples=8)).bundle


def build_all(bundle: Bundle, engines: EngineStore) -> None:
    """Build every graph of encoder and classifier."""
    for graph in bundle.manifest.graphs:
        factory = EngineFactory(bundle, "rtx", engines, {graph.stage: graph.precision})
        engine, _ = factory.build(graph.stage, graph.schedule)
        sidecar = engine.sidecar
        assert engine.path.stat().st_size == sidecar.engine_bytes > 10_000
        assert (sidecar.key.precision, sidecar.key.schedule) == (graph.precision, graph.schedule)
        assert bool(sidecar.origin.quantized_convolutions) == (graph.precision == "int8")
        executed = sidecar.build.executed_convolutions
        assert executed is not None
        assert (sum(executed.values()), executed["unknown"]) == (graph.convolutions, 0)
        assert executed["int8"] == graph.quantized_convolutions
        assert sidecar.build.peak_host_memory_mib > 50
        assert not factory.build(graph.stage, graph.schedule)[1]


def test_presets_build_in_every_precision_and_schedule(
    calibrated_preset: Bundle, engines: EngineStore
) -> None:
    build_all(calibrated_preset, engines)


def test_the_demo_builds_in_every_precision_and_schedule(
    calibrated_demo: CalibratedDemo, engines: EngineStore
) -> None:
    assert {graph.schedule for graph in calibrated_demo.bundle.manifest.graphs} >= set(SCHEDULES)
    build_all(calibrated_demo.bundle, engines)


def test_the_full_size_encoder_in_int8_is_small(tmp_path: Path) -> None:
    """ccr-layer1 at 224x224 and T=8; the values of the ranges do not change the size."""
    checkpoint = untrained_checkpoint(preset("ccr-layer1"))
    encoder = EncoderGraph(
        unroll(build_model(checkpoint).encoder, 8, "iteration-major"), checkpoint.preprocessing
    )
    fp32 = to_onnx(encoder, torch.zeros(2, 224, 224, 3, dtype=torch.uint8), "image", "code")
    tensors = {name: TensorRange(low=-1, high=1, method="minmax") for name in quantized_activations(fp32)}
    int8 = to_int8("encoder", fp32, cast(fp32, []), StageTable(tensors=tensors), HIGH_PRECISION_LAYERS)
    ir.save(int8, tmp_path / "encoder.onnx")
    full_size = structs.replace(
        request(tmp_path / "encoder.onnx", tmp_path), input_shapes={"image": (224, 224, 3)}
    )
    facts = build(full_size, ignore)
    assert full_size.engine.stat().st_size <= 12e6
    assert facts.library_version
    assert facts.peak_device_memory_mib is not None


def ignore(_: int) -> None:
    """Ignore the progress."""


def request(graph: Path, folder: Path) -> BuildRequest:
    return BuildRequest(
        graph=graph,
        engine=folder / "encoder.plan",
        options=OPTIONS,
        precision="fp32",
        batch=Batch(),
        input_shapes={"x": (4,)},
        timing_cache=None,
        can_run=False,
    )


def one_node(operator: str, path: Path, domain: str = "", dtype: int = TensorProto.FLOAT) -> Path:
    node = helper.make_node(operator, ["x"], ["y"], name="cell1/the_culprit", domain=domain)
    values = [helper.make_tensor_value_info(name, dtype, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_a_node_that_the_parser_does_not_support_is_named(tmp_path: Path) -> None:
    graph = one_node("Mystery", tmp_path / "graph.onnx", domain="of.ours")
    with pytest.raises(EngineError, match=r"graph\.onnx: TensorRT-RTX cannot build it: .*cell1/the_culprit"):
        build(request(graph, tmp_path), ignore)
    assert "Mystery" in log_path(tmp_path / "encoder.plan").read_text()


def test_the_parser_refuses_a_transposed_uint8(tmp_path: Path) -> None:
    graph = one_node("Transpose", tmp_path / "graph.onnx", dtype=TensorProto.UINT8)
    with pytest.raises(EngineError, match=r"graph\.onnx: TensorRT-RTX cannot build it: .*") as caught:
        build(request(graph, tmp_path), ignore)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "encoder.plan").exists()


@pytest.mark.parametrize("content", [b"", b"no graph at all", bytes(64)])
def test_a_file_that_is_not_a_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(content)
    with pytest.raises(EngineError, match=r"graph\.onnx: TensorRT-RTX cannot build it"):
        build(request(graph, tmp_path), ignore)


def test_an_unknown_compute_capability_is_named(tmp_path: Path) -> None:
    graph = one_node("Relu", tmp_path / "graph.onnx")
    changed = structs.replace(request(graph, tmp_path), options=RtxOptions(compute_capabilities=("9.9",)))
    with pytest.raises(EngineError, match=r"9\.9"):
        build(changed, ignore)


def test_an_engine_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    graph = one_node("Relu", tmp_path / "graph.onnx")
    engine = tmp_path / "encoder.plan"
    engine.mkdir()
    with pytest.raises(EngineError, match="Is a directory"):
        build(structs.replace(request(graph, tmp_path), engine=engine), ignore)


class Watched:
    """Records the progress, and calls a function at the first step."""

    def __init__(self, at_first_step=None) -> None:
        self.seen: list[int] = []
        self._at_first_step = at_first_step

    @contextmanager
    def task(self, _: str, __: int) -> Iterator[Advance]:
        def advance(units: int) -> None:
            self.seen.append(units)
            if self._at_first_step:
                self._at_first_step()

        yield advance


def builders() -> list[int]:
    """Return the builder processes of this test; other tests may run at the same time."""
    found = []
    for process in heirs("PYTEST_CURRENT_TEST", os.environ["PYTEST_CURRENT_TEST"]):
        with suppress(OSError):  # the process has ended
            if b"ccr_deploy.backends.tensorrt" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0"):
                found.append(process)
    return found


def test_progress_is_reported_in_steps(
    calibrated_demo: CalibratedDemo, engines: EngineStore, target: Path
) -> None:
    progress = Watched()
    EngineFactory(calibrated_demo.bundle, str(target), engines).build("encoder", progress=progress)
    assert len(progress.seen) > 2
    assert all(units > 0 for units in progress.seen)
    assert sum(progress.seen) <= 100


def test_a_builder_that_crashes_is_an_error_that_names_its_log(
    calibrated_demo: CalibratedDemo, tmp_path: Path, target: Path
) -> None:
    def crash() -> None:
        for process in builders():
            os.kill(process, signal.SIGSEGV)

    store = EngineStore(tmp_path / "engines")
    factory = EngineFactory(calibrated_demo.bundle, str(target), store)
    with pytest.raises(
        EngineError, match=r"builder failed: its process was killed by SIGSEGV; .*log: "
    ) as caught:
        factory.build("encoder", progress=Watched(crash))
    log = Path(str(caught.value).rpartition("log: ")[2])
    assert log.is_file()
    assert list(store.path.iterdir()) == [log]


def test_an_interrupted_build_leaves_nothing(
    calibrated_demo: CalibratedDemo, tmp_path: Path, target: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    store = EngineStore(tmp_path / "engines")
    factory = EngineFactory(calibrated_demo.bundle, str(target), store)
    with pytest.raises(KeyboardInterrupt):
        factory.build("encoder", progress=Watched(interrupt))
    assert list(store.path.iterdir()) == []
    assert builders() == []


def test_ctrl_c_interrupts_the_command(calibrated_demo: CalibratedDemo, tmp_path: Path, target: Path) -> None:
    command = [sys.executable, "-m", "ccr_deploy", "build-engine", calibrated_demo.bundle.path]
    options = ["--target", target, "--engines", tmp_path / "engines"]
    with started([*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not builders():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert error.strip().startswith("ccr-deploy: interrupted")
    assert builders() == []
    assert not list((tmp_path / "engines").glob("*"))


def test_a_builder_does_not_outlive_its_killed_parent(
    calibrated_demo: CalibratedDemo, tmp_path: Path, target: Path
) -> None:
    command = [sys.executable, "-m", "ccr_deploy", "build-engine", calibrated_demo.bundle.path]
    options = ["--target", target, "--engines", tmp_path / "engines"]
    with started([*command, *options], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not builders():
            time.sleep(0.01)
        process.kill()
        process.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while builders() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert builders() == []
    # The next build removes what is left.
    EngineFactory(calibrated_demo.bundle, str(target), EngineStore(tmp_path / "engines")).build("encoder")
    assert not list((tmp_path / "engines").glob(".building-*"))


def test_other_options_give_another_engine(
    calibrated_demo: CalibratedDemo, engines: EngineStore, tmp_path: Path, target: Path
) -> None:
    first, _ = EngineFactory(calibrated_demo.bundle, str(target), engines).build("classifier")
    changes = (
        ('["8.6"]', '["8.6", "8.9"]'),
        ("[1, 8]", "[1, 8, 16]"),
        ("classifier = [1, 8]", "classifier = [8]\ndynamic = true"),
        ("[options]", "[options]\ntf32 = true"),
        ("[options]", "[options]\nworkspace_mib = 512"),
    )
    for number, (old, new) in enumerate(changes):
        other = tmp_path / f"{number}.toml"
        other.write_text(TARGET.replace(old, new))
        engine, built_now = EngineFactory(calibrated_demo.bundle, str(other), engines).build("classifier")
        assert built_now
        assert engine.path != first.path
    again, built_now = EngineFactory(calibrated_demo.bundle, str(target), engines).build("classifier")
    assert (again.path, built_now) == (first.path, False)
    assert EngineFactory(calibrated_demo.bundle, str(target), engines).build("classifier", rebuild=True)[1]


def test_int8_from_a_graph_without_quantized_convolutions_is_an_error(
    calibrated_demo: CalibratedDemo, engines: EngineStore, tmp_path: Path
) -> None:
    shutil.copytree(calibrated_demo.bundle.path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    every = [
        layer
        for graph in bundle.manifest.graphs
        if graph.precision == "fp32" and graph.schedule in {None, "iteration-major"}
        for layer in layers(load_model(bundle, graph))
    ]
    recipe = CalibrationRecipe(samples=8, keep_high_precision=tuple(every))
    unquantized = calibrate_bundle(bundle, calibrated_demo.images, recipe).bundle
    factory = EngineFactory(unquantized, "rtx", engines, {"encoder": "int8"})
    with pytest.raises(
        EngineError, match=r"INT8 was requested, but none of its \d+ convolutions is quantized"
    ):
        factory.build("encoder")


@pytest.fixture(scope="module")
def encoder_engine(calibrated_demo: CalibratedDemo, engines: EngineStore) -> Path:
    factory = EngineFactory(calibrated_demo.bundle, "rtx", engines, {"encoder": "int8"})
    return factory.build("encoder")[0].path


@pytest.fixture
def copied_engine(encoder_engine: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (encoder_engine, sidecar_path(encoder_engine)):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / encoder_engine.name


def refusal(engine: Path) -> str:
    """Return the error that is raised before the engine's bytes reach TensorRT."""
    options = RtxOptions(compute_capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"))
    with pytest.raises(EngineError) as caught:
        load_engine(make_backend(options), engine, "int8")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_key(engine: Path, **changes: str) -> None:
    content = json.loads(sidecar_path(engine).read_text())
    content["key"].update(changes)
    sidecar_path(engine).write_text(json.dumps(content))


def test_an_engine_of_another_version_is_refused(copied_engine: Path) -> None:
    edit_key(copied_engine, backend_version="1.4.0.76")
    assert "its sidecar's backend_version is 1.4.0.76, expected 1." in refusal(copied_engine)


def test_an_engine_for_other_gpus_is_refused(copied_engine: Path) -> None:
    edit_key(copied_engine, device="compute capability 7.5")
    message = "its sidecar's device is compute capability 7.5, expected compute capability 8.0 or 8.6 or"
    assert message in refusal(copied_engine)


def test_an_engine_of_another_flavour_or_precision_is_refused(copied_engine: Path) -> None:
    edit_key(copied_engine, precision="fp16")
    assert "its sidecar's precision is fp16, expected int8" in refusal(copied_engine)
    edit_key(copied_engine, backend="tensorrt")
    assert "its sidecar's backend is tensorrt, expected tensorrt-rtx" in refusal(copied_engine)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_changed_byte_is_refused(copied_engine: Path, position: int) -> None:
    content = bytearray(copied_engine.read_bytes())
    content[position] ^= 1
    copied_engine.write_bytes(content)
    assert f"{copied_engine}: damaged or changed" in refusal(copied_engine)


def test_an_engine_without_its_sidecar_is_refused(copied_engine: Path) -> None:
    sidecar_path(copied_engine).unlink()
    assert "encoder.int8.plan.json: no such file" in refusal(copied_engine)


def test_an_intact_engine_is_refused_only_without_a_gpu(copied_engine: Path) -> None:
    if gpu_is_there():
        pytest.skip("this machine has a GPU, which may run it")
    assert refusal(copied_engine).startswith(f"{copied_engine}: cannot run on this machine: no GPU found")


def test_polygraphy_builds_the_same_engine_from_the_printed_command(
    calibrated_demo: CalibratedDemo, encoder_engine: Path, tmp_path: Path
) -> None:
    found = json.loads(run("inspect", encoder_engine, "--json").stdout)
    assert found["origin"]["graph_file"].startswith("encoder.int8.iteration-major.")
    printed = run("inspect", encoder_engine, "--reproduce", "--bundle", calibrated_demo.bundle.path)
    assert (printed.status, printed.stderr) == (0, "")
    caveat, _, command, _, _ = printed.stdout.strip().splitlines()
    assert caveat.startswith("# ")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, check=True, capture_output=True)
    ours, theirs = encoder_engine.stat().st_size, (tmp_path / "polygraphy.plan").stat().st_size
    assert theirs == pytest.approx(ours, rel=0.05)


def test_only_tensorrt_engines_can_be_reproduced(
    calibrated_demo: CalibratedDemo, engines: EngineStore, encoder_engine: Path, tiny_bundle: Bundle
) -> None:
    engine, _ = EngineFactory(calibrated_demo.bundle, "cpu", engines).build("encoder")
    with pytest.raises(WrongUsageError, match="built by onnxruntime: ONNX Runtime has no command-line tools"):
        reproduce(engine.sidecar, engine.path, calibrated_demo.bundle)
    outcome = run("inspect", encoder_engine, "--reproduce", "--bundle", tiny_bundle.path)
    assert outcome.status == 2
    assert "has no graph encoder.int8.iteration-major." in outcome.error_line
