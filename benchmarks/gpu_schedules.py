"""Compare the unroll schedules of an encoder on an NVIDIA GPU, in FP16 as CUDA graphs of PyTorch.

``python -m benchmarks.gpu_schedules`` prints the result as JSON. Beside iteration-major and layer-major it
times layer-major with a Triton kernel for the LSTM per pixel (`benchmarks.pixel_lstm`): its ratio to the
faster of the two tells whether a plugin for TensorRT, which has no such operator, is worth building.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
import triton

from benchmarks.pixel_lstm import pixel_lstm
from ccr_deploy.backends.device_timer import DeviceTimer
from ccr_deploy.backends.pytorch.engine_file import StageNetwork
from ccr_deploy.backends.pytorch.graph_runner import GraphRunner
from ccr_deploy.backends.pytorch.packed import PackedEncoder
from ccr_deploy.core import records
from ccr_deploy.core.gpu import cuda_runtime, find_gpu
from ccr_deploy.core.records import Record
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import default_preprocessing, preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from ccr_deploy.models.config import ModelConfig

_WARM_UP_SECONDS = 0.5
SCHEDULES = ("iteration-major", "layer-major", "layer-major, LSTM kernel")


class ScheduleTime(Record, frozen=True):
    """The time of a schedule at one batch size.

    `ratio` is that to iteration-major, `ratio_to_faster` that to the faster of iteration-major and
    layer-major; both are medians over the rounds of the device's time. `differing_bits_percent` is the share
    of the codes' bits that differ from those of iteration-major.
    """

    schedule: str
    batch: int
    device_ms_p50: float
    wall_ms_p50: float
    ratio: float
    ratio_to_faster: float
    differing_bits_percent: float


class GpuSchedules(Record, frozen=True):
    """The times of all schedules, with GPU and versions."""

    schema_version: int
    model: str
    gpu: str
    driver: str | None
    torch: str
    triton: str
    rounds: int
    times: tuple[ScheduleTime, ...]


class LstmKernelEncoder(PackedEncoder):
    """A layer-major encoder whose cells run all iterations in one kernel after their input convolution."""

    def _layer_major(self, pixels: Tensor) -> Tensor:
        first, *others = self.encoder.cells
        gates = first.input_conv(self.encoder.stem(pixels))
        hidden = pixel_lstm(first, gates, self.iterations, shared=True)
        for cell in others:
            hidden = pixel_lstm(cell, cell.input_conv(hidden), self.iterations)
        return hidden.chunk(self.iterations)[-1]


def encoder_runner(schedule: str, config: ModelConfig) -> GraphRunner:
    """Return the runner of an untrained encoder on the GPU.

    Args:
        schedule: one of `SCHEDULES`.
        config: the configuration of the model.
    """
    chain, preprocessing = CcrChain(config), default_preprocessing(config)
    chain.load_state_dict(untrained_checkpoint(config).state_dict)
    engine = StageNetwork(chain.encoder.eval(), "encoder", config, preprocessing)
    kind = LstmKernelEncoder if "kernel" in schedule else PackedEncoder
    network = kind(
        chain.encoder,
        config.iterations,
        preprocessing,
        dtype=torch.float16,
        schedule="iteration-major" if schedule == SCHEDULES[0] else "layer-major",
    )
    return GraphRunner(network, engine, torch.device("cuda"))


def measure(
    runners: dict[str, GraphRunner], images: npt.NDArray[np.uint8], rounds: int
) -> list[ScheduleTime]:
    """Time one batch in every schedule, interleaved.

    Args:
        runners: the runner of each schedule; the first is what the others are compared with.
        images: the batch, ``uint8 [N, H, W, 3]``.
        rounds: the number of rounds; each runs every schedule once.
    """
    codes: dict[str, npt.NDArray[np.uint8]] = {
        name: runner.infer({"image": images})["code"].astype(np.uint8) for name, runner in runners.items()
    }
    _warm_up(runners, images)
    device: dict[str, list[float]] = {name: [] for name in runners}
    wall: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            start = time.perf_counter()
            runner.infer({"image": images})
            wall[name].append(1000 * (time.perf_counter() - start))
            assert runner.device_timer is not None
            device[name].append(runner.device_timer.take_milliseconds() or math.nan)
    first = next(iter(runners))
    faster = min(SCHEDULES[:2], key=lambda name: statistics.median(device[name]))
    return [
        ScheduleTime(
            schedule=name,
            batch=len(images),
            device_ms_p50=statistics.median(device[name]),
            wall_ms_p50=statistics.median(wall[name]),
            ratio=_ratio(device[name], device[first]),
            ratio_to_faster=_ratio(device[name], device[faster]),
            differing_bits_percent=100 * float(np.unpackbits(codes[name] ^ codes[first]).mean()),
        )
        for name in runners
    ]


def _ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of two times."""
    return statistics.median(own / other for own, other in zip(times, others, strict=True))


def _warm_up(runners: dict[str, GraphRunner], images: npt.NDArray[np.uint8]) -> None:
    """Run all schedules until the clocks of an idle GPU have risen."""
    end = time.perf_counter() + _WARM_UP_SECONDS
    while time.perf_counter() < end:
        for runner in runners.values():
            runner.infer({"image": images})


@click.command()
@click.option("--preset", "name", default="ccr-layer1", show_default=True, help="Preset of the model.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 64), show_default=True)
@click.option("--rounds", default=200, show_default=True, help="Number of rounds.")
def main(name: str, batches: tuple[int, ...], rounds: int) -> None:
    """Time the schedules and print the result."""
    config = preset(name)
    try:
        gpu = find_gpu()
    except CcrDeployError as error:
        raise click.ClickException(f"{error}: run it on a machine with an NVIDIA GPU") from error
    torch.backends.cudnn.benchmark = True
    runners = {schedule: encoder_runner(schedule, config) for schedule in SCHEDULES}
    for runner in runners.values():
        runner.device_timer = DeviceTimer(cuda_runtime())
    generator = np.random.default_rng(0)
    times: list[ScheduleTime] = []
    for batch in batches:
        shape = (batch, config.image_height, config.image_width, 3)
        times += measure(runners, generator.integers(0, 256, shape, dtype=np.uint8), rounds)
    result = GpuSchedules(
        schema_version=1,
        model=f"{name}, untrained, {config.image_height}x{config.image_width}, T={config.iterations}",
        gpu=str(gpu),
        driver=gpu.driver,
        torch=torch.__version__,
        triton=triton.__version__,
        rounds=rounds,
        times=tuple(times),
    )
    click.echo(records.to_json(result))


if __name__ == "__main__":
    main()
