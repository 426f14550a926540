"""Results of the modes of `benchmark`, with usual values for what a test does not care about."""

from __future__ import annotations

import numpy as np

from ccr_deploy.benchmarking.results import GpuState
from ccr_deploy.benchmarking.roofline_results import EngineRoofline, MatrixRate, MemoryBandwidth, Roofline
from ccr_deploy.benchmarking.scenario_results import (
    Latencies,
    ScenarioResult,
    ScenarioSettings,
    SoakInterval,
    SoakResult,
)
from ccr_deploy.benchmarking.stage_results import EndToEnd, Energy, ImageBytes, StartUp, StepTime
from ccr_deploy.benchmarking.table1_results import PaperRow, Table1, Table1Model, Table1Time
from ccr_deploy.core.metrics import Interval
from tests.support.benchmark_runs import machine_state

RUN = {
    "schema_version": 1,
    "created_by": "test",
    "bundle": "bundle",
    "contract_id": "0123456789abcdef",
    "weights_sha256": "0" * 64,
    "model": "224x224, T=8, cut layer1",
    "trained_iterations": (8,),
    "warnings": (),
    "target": "cpu",
    "subject": "chain",
    "precisions": ("int8", "int8"),
    "engines_sha256": ("ab" * 32, "cd" * 32),
    "backend_version": "1.0",
    "batch": 1,
    "threads": 2,
    "machine": machine_state(),
    "contention": (),
    "unreliable_reasons": (),
}


def latencies(samples: np.ndarray) -> Latencies:
    """Return percentiles of samples in ms."""
    shares = (50, 90, 95, 97, 99, 99.9)
    return Latencies(
        *(float(value) for value in np.percentile(samples, shares)),
        mean_ms=float(samples.mean()),
        min_ms=float(samples.min()),
        max_ms=float(samples.max()),
    )


def scenario_result(
    scenario: str = "single-stream", median_ms: float = 60.0, **values: object
) -> ScenarioResult:
    """Return the result of a scenario with planted latencies."""
    samples = median_ms * (1 + np.random.default_rng(0).exponential(0.1, 400))
    bound = 2 * median_ms if scenario == "server" else None
    usual = {
        **RUN,
        "scenario": scenario,
        "issued_by": "ccr-deploy",
        "settings": ScenarioSettings(10.0, 64, 1, 90.0, 10.0 if bound else None, bound, 16, 0),
        "queries": len(samples),
        "samples": len(samples),
        "duration_seconds": 24.0,
        "samples_per_second": 16.7,
        "queries_per_second": 16.7,
        "latencies": latencies(samples),
        "samples_ms": tuple(samples.tolist()),
        "early_stopping": None,
        "bound_met": True if bound else None,
        "over_bound_percent": 0.0 if bound else None,
        "is_quotable": False,
        "not_quotable_reasons": ("it lasted 24 s, less than 600 s",),
    }
    return ScenarioResult(**{**usual, **values})


def soak_interval(number: int, **values: object) -> SoakInterval:
    """Return one interval of a soak whose latency and temperature rise."""
    usual = {
        "seconds": 10.0 * number,
        "duration_seconds": 10.0,
        "runs": 150,
        "p50_ms": 60.0 + 0.1 * number,
        "p90_ms": 66.0 + 0.1 * number,
        "p99_ms": 80.0 + (number % 7),
        "max_ms": 120.0,
        "images_per_second": 16.0,
        "memory_mib": 300.0,
        "device_memory_mib": None,
        "cpu_clock_mhz": 3000.0 - 5 * number,
        "cpu_temperature_celsius": 50.0 + 0.3 * number,
        "cpu_power_watts": None,
        "gpu": None,
        "other_processes_cores": 0.0,
        "stolen_cores": 0.0,
        "throttled_cores": 0.0,
    }
    return SoakInterval(**{**usual, **values})


def soak_result(intervals: int = 60, **values: object) -> SoakResult:
    """Return the result of a soak."""
    samples = 60 * (1 + np.random.default_rng(0).exponential(0.1, 400))
    usual = {
        **RUN,
        "minutes": intervals / 6,
        "ended_early": False,
        "duration_seconds": 10.0 * intervals,
        "runs": 150 * intervals,
        "latencies": latencies(samples),
        "samples_ms": tuple(samples.tolist()),
        "intervals": tuple(soak_interval(number) for number in range(intervals)),
        "latency_drift": None,
        "throughput_drift": None,
        "memory_drift": None,
    }
    return SoakResult(**{**usual, **values})


def gpu_state(**values: object) -> GpuState:
    """Return the state of a GPU under load."""
    usual = {"sm_clock_mhz": 1980, "memory_clock_mhz": 2619, "power_watts": 300.0, "temperature_celsius": 50}
    return GpuState(**{**usual, **values})


def step_time(step: str, median_ms: float) -> StepTime:
    """Return the time of a step."""
    interval = Interval(0.97 * median_ms, 1.03 * median_ms)
    worst = Interval(1.2 * median_ms, 1.6 * median_ms)
    return StepTime(step, median_ms, interval, 1.4 * median_ms, worst, ((median_ms,),))


def end_to_end(**values: object) -> EndToEnd:
    """Return the steps from image file to label."""
    steps = {"decode": 4.0, "resize": 2.5, "encoder": 38.0, "payload": 0.1}
    steps |= {"payload read": 0.1, "classifier": 9.0, "label": 0.02}
    usual = {
        "images": "16 images",
        "image_count": 16,
        "steps": tuple(step_time(name, median) for name, median in steps.items()),
        "sum": step_time("sum", 53.7),
        "chain": step_time("chain", 53.9),
        "unaccounted_ms": 0.2,
        "unaccounted_ms_interval": Interval(0.1, 0.3),
        "image_bytes": ImageBytes(20_000.0, 150_528, 812),
        "peak_memory_mib": 350.0,
        "device_memory_mib": None,
        "start_up": StartUp("warm", (200.0, 210.0), (300.0, 310.0), (60.0, 61.0), (560.0, 581.0)),
        "energy": Energy(None, "the processor has no RAPL counters"),
    }
    return EndToEnd(**{**usual, **values})


def engine_roofline(
    subject: str, candidate: str, *, is_target: bool, macs: float, ms: float
) -> EngineRoofline:
    """Return an engine of `macs` multiply-accumulates that takes `ms`."""
    return EngineRoofline(
        subject=subject,
        candidate=candidate,
        is_target=is_target,
        multiply_accumulates=int(macs),
        int8_multiply_accumulates=0,
        least_bytes=int(macs / 400),
        most_bytes=int(macs / 40),
        lowest_intensity=40.0,
        highest_intensity=400.0,
        latency_ms_p50=ms,
        matrix_ms=0.8 * ms,
        least_memory_ms=0.1 * ms,
        most_memory_ms=ms,
        bound_ms=0.8 * ms,
        reached_percent=80.0,
        limit="matrix rate",
    )


def roofline(**values: object) -> Roofline:
    """Return a roofline with the engines of the target and of another precision."""
    usual = {
        "threads": 2,
        "matrix_rates": (
            MatrixRate("fp32", 90.0, "OpenVINO, 2048x2048x2048, 2 threads"),
            MatrixRate("int8", 330.0, "OpenVINO, 2048x2048x2048, 2 threads"),
        ),
        "bandwidth": MemoryBandwidth(14.0, "copy, 256 MiB, 2 threads"),
        "not_measured": (),
        "engines": (
            engine_roofline("encoder", "openvino int8", is_target=True, macs=7.5e9, ms=38.0),
            engine_roofline("encoder", "openvino fp32", is_target=False, macs=7.5e9, ms=95.0),
            engine_roofline("classifier", "openvino int8", is_target=True, macs=1.5e9, ms=9.0),
            engine_roofline("chain", "openvino int8", is_target=True, macs=9.0e9, ms=48.0),
        ),
    }
    return Roofline(**{**usual, **values})


def table1_time(model: str, runtime: str, precision: str, ms: float, reduction: float | None) -> Table1Time:
    """Return the time of a whole model."""
    interval = None if reduction is None else Interval(reduction - 1, reduction + 1)
    return Table1Time(
        model=model,
        part="chain",
        runtime=runtime,
        precision=precision,
        runs=100,
        latency_ms_p50=ms,
        latency_ms_p50_interval=Interval(0.98 * ms, 1.02 * ms),
        latency_ms_p99=1.3 * ms,
        peak_memory_mib=400.0,
        reduction_percent=reduction,
        reduction_percent_interval=interval,
    )


def table1(**values: object) -> Table1:
    """Return measured times beside the paper's."""
    papers = (
        PaperRow("baseline", 42.8, None, 20_293_224, 64.94),
        PaperRow("layer1", 23.8, 43, 14_867_364, 66.4),
        PaperRow("layer2", 11.4, 74, 14_581_796, 65.14),
        PaperRow("layer3", 9.0, 79, 13_404_452, 54.16),
    )
    times = [
        table1_time(f"ccr-{paper.model}", runtime, precision, 1000.0, reduction)
        for runtime, precision, reductions in (
            ("PyTorch eager", "fp32", (None, 93.0, 94.0, 94.5)),
            ("openvino", "fp32", (None, 95.0, 95.5, 96.0)),
            ("openvino", "fp16", (None, 95.2, 95.7, 96.1)),
        )
        for paper, reduction in zip(papers, reductions, strict=True)
    ]
    usual = {
        "schema_version": 1,
        "created_by": "test",
        "target": "cpu",
        "image_height": 224,
        "image_width": 224,
        "iterations": 8,
        "threads": 2,
        "rounds": 15,
        "machine": machine_state(),
        "models": tuple(
            Table1Model(f"ccr-{paper.model}", paper.parameters, 7_500_000_000, 1_500_000_000, paper)
            for paper in papers
        ),
        "times": tuple(times),
    }
    return Table1(**{**usual, **values})
