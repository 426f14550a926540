"""Stand-ins and records for tests of scenarios."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import asdict

from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.scenario_results import (
    Compared,
    EngineRun,
    LoadGenSummary,
    ScenarioResult,
    ScenarioSettings,
    SoakInterval,
    SoakResult,
)
from ccr_deploy.benchmarking.scenarios.drift import drift
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.statistics import latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.core.scenarios import Scenario


class System:
    """Engines that write down the indices of each run."""

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.runs: list[list[int]] = []

    def run(self, indices: Sequence[int]) -> None:
        self.runs.append([*indices])

    def run_all(self, indices: Sequence[int]) -> None:
        self.run(indices)


def scenario_settings(**values) -> ScenarioSettings:
    return ScenarioSettings(
        **{
            "min_duration_seconds": 0.05,
            "min_queries": 1,
            "samples_per_query": 1,
            "target_percentile": 90,
            "rate_per_second": None,
            "latency_bound_ms": None,
            "pool": 5,
            "seed": 3,
            **values,
        }
    )


class Pausing(System):
    """Engines that take some seconds for each run."""

    def __init__(self, seconds: float, batch: int = 1) -> None:
        super().__init__(batch)
        self._seconds = seconds

    def run(self, indices: Sequence[int]) -> None:
        super().run(indices)
        time.sleep(self._seconds)


def failed(error: Exception) -> NoReturn:
    """Fail the test: an engine failed in another thread."""
    raise AssertionError(error)


def machine() -> MachineState:
    return MachineState(
        processor="Test CPU",
        usable_cores=2,
        memory_gib=8.0,
        operating_system="Linux",
        python="3.11.7",
        cpu_busy_percent=0.0,
        frequency_governor=None,
    )


def engine_run(**values) -> EngineRun:
    return EngineRun(
        **{
            "schema_version": 1,
            "created_by": "ccr-deploy 1.0",
            "bundle": "bundle",
            "contract_id": "0123",
            "weights_sha256": "4567",
            "model": "32x32, T=2, cut layer1",
            "trained_iterations": (2,),
            "warnings": (),
            "target": "cpu",
            "subject": "chain",
            "precisions": ("int8", "fp32"),
            "engines_sha256": ("aa", "bb"),
            "backend_version": "1.30",
            "batch": 1,
            "threads": 2,
            "machine": machine(),
            "contention": (),
            "unreliable_reasons": (),
            **values,
        }
    )


def scenario_result(scenario: Scenario = "single-stream", **values) -> ScenarioResult:
    samples = tuple(float(value) for value in range(1, 101))
    run = {name: values.pop(name) for name in EngineRun.__struct_fields__ if name in values}
    return ScenarioResult(
        **asdict(engine_run(**run)),
        **{
            "scenario": scenario,
            "issued_by": "ccr-deploy",
            "settings": scenario_settings(),
            "queries": 100,
            "samples": 100,
            "duration_seconds": 5.5,
            "samples_per_second": 19.8,
            "queries_per_second": 19.8,
            "latencies": latencies(samples),
            "samples_ms": samples,
            "early_stopping": early_stopping(samples, 90),
            "bound_met": None,
            "over_bound_percent": None,
            "is_quotable": False,
            "not_quotable_reasons": ("it lasted 5 s of 600",),
            **values,
        },
    )


def loadgen_summary(**values) -> LoadGenSummary:
    return LoadGenSummary(
        **{
            "version": "6.0.17",
            "is_valid": True,
            "invalid_reasons": (),
            "queries": 100,
            "compared": (Compared("p50 ms", 10.0, 10.01, 0.1, agrees=True),),
            "limit_percent": 2.0,
            "limit_ms": 0.1,
            "agrees": True,
            "early_stopping_met": True,
            "early_stopping_estimate_ms": 95.0,
            **values,
        }
    )


def soak_interval(index: int, p50_ms: float = 10.0, **values) -> SoakInterval:
    return SoakInterval(
        **{
            "seconds": 5.0 * index,
            "duration_seconds": 5.0,
            "runs": 500,
            "p50_ms": p50_ms,
            "p90_ms": p50_ms + 1,
            "p99_ms": p50_ms + 2,
            "max_ms": p50_ms + 3,
            "images_per_second": 1000 / p50_ms,
            "memory_mib": 100.0,
            "device_memory_mib": None,
            "cpu_clock_mhz": None,
            "cpu_temperature_celsius": None,
            "cpu_power_watts": None,
            "gpu": None,
            "other_processes_cores": 0.0,
            "stolen_cores": 0.0,
            "throttled_cores": None,
            **values,
        }
    )


def soak_result(intervals: Sequence[SoakInterval], **values) -> SoakResult:
    run = {name: values.pop(name) for name in EngineRun.__struct_fields__ if name in values}
    return SoakResult(
        **asdict(engine_run(**run)),
        **{
            "minutes": 10.0,
            "ended_early": False,
            "duration_seconds": 600.0,
            "runs": 500 * len(intervals),
            "latencies": latencies([entry.p50_ms for entry in intervals]),
            "samples_ms": (),
            "intervals": tuple(intervals),
            "latency_drift": drift([entry.p50_ms for entry in intervals], 2),
            "throughput_drift": drift([entry.images_per_second for entry in intervals], 2),
            "memory_drift": drift([entry.memory_mib for entry in intervals], 5),
            **values,
        },
    )
