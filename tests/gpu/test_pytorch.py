"""PyTorch in FP16 as a CUDA graph, its time on the GPU, and the GPU's sensors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.device_timer import DeviceTimer, timed_on_device
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.benchmarking.gpu_sensors import open_sensors
from ccr_deploy.core.gpu import cuda_runtime
from tests.support.networks import PREPROCESSING, codes, images, stage_network

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.stages import Stage

SCHEDULES = ("iteration-major", "layer-major")


@pytest.fixture(autouse=True)
def exact_fp32() -> None:
    """The backend sets these when it loads an engine; these tests make runners without it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def eager(stage: Stage) -> Runner:
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner

    return PyTorchRunner(stage_network(stage), PyTorchOptions(device="cuda"))


def captured(stage: Stage, schedule: str = "layer-major", dtype: str = "float16") -> Runner:
    from ccr_deploy.backends.pytorch.graph_runner import GraphRunner
    from ccr_deploy.backends.pytorch.packed import packed_network

    engine = stage_network(stage)
    network = packed_network(
        engine.network, engine.model, PREPROCESSING, dtype=getattr(torch, dtype), schedule=schedule
    )
    return GraphRunner(network, engine, torch.device("cuda"))


def flips(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    return float(np.unpackbits(first ^ second).mean())


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 0.0005), ("float16", 0.02)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_replayed_encoder_gives_the_codes_of_the_reference(schedule: str, dtype: str, limit: float) -> None:
    """Other images are replayed with the graph of the first ones, and have other codes."""
    reference, graph = eager("encoder"), captured("encoder", schedule, dtype)
    expected = [reference.infer(images(8, seed))["code"] for seed in (1, 2)]
    found = [graph.infer(images(8, seed))["code"] for seed in (1, 2)]
    assert flips(*expected) > 0.1
    assert flips(*found) > 0.1
    for one, other in zip(expected, found, strict=True):
        assert flips(one, other) < limit
    np.testing.assert_array_equal(graph.infer(images(8, 1))["code"], found[0])


def test_a_replayed_classifier_gives_the_logits_of_the_reference() -> None:
    reference, graph = eager("classifier"), captured("classifier")
    for count in (8, 3, 8):
        expected = reference.infer(codes(count))["logits"]
        found = graph.infer(codes(count))["logits"]
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 0.05 * np.ptp(expected, axis=0).max()


def test_each_batch_size_has_its_own_graph() -> None:
    graph = captured("encoder")
    first = {size: graph.infer(images(size))["code"] for size in (1, 5, 16)}
    torch.full((64 << 20,), 255, dtype=torch.uint8, device="cuda")  # overwrites memory that was freed
    for size in (16, 1, 5):
        np.testing.assert_array_equal(graph.infer(images(size))["code"], first[size])


@pytest.mark.parametrize("make", [eager, captured])
def test_the_time_on_the_gpu_is_a_part_of_the_time_of_a_run(make) -> None:
    runner, timer = make("encoder"), DeviceTimer(cuda_runtime())
    runner.infer(images(8))
    runner.device_timer = timer
    started = time.perf_counter()
    runner.infer(images(8))
    milliseconds = 1000 * (time.perf_counter() - started)
    assert 0 < timer.take_milliseconds() <= milliseconds
    timer.close()


@pytest.mark.parametrize("make", [eager, captured])
def test_a_run_without_copies_is_measured_by_both_clocks(make) -> None:
    runner, timer = make("encoder"), DeviceTimer(cuda_runtime())
    run = runner.on_device(images(8))
    run()
    runner.device_timer = timer
    started = time.perf_counter()
    run()
    milliseconds = 1000 * (time.perf_counter() - started)
    assert 0 < timer.take_milliseconds() <= milliseconds
    timer.close()


def test_the_timer_measures_the_work_in_its_stream() -> None:
    """Cycles of a clock that is below 3 GHz."""
    timer, stream = DeviceTimer(cuda_runtime()), torch.cuda.Stream()
    with torch.cuda.stream(stream), timed_on_device(timer, stream.cuda_stream):
        torch.cuda._sleep(30_000_000)
    assert timer.take_milliseconds() > 10
    timer.close()


def test_the_sensors_of_this_gpu_are_read() -> None:
    sensors = open_sensors()
    if sensors is None:
        pytest.skip("cuda-python does not bind NVML here, or there is no NVML")
    assert (sensors.read().sm_clock_mhz or 0) > 0
