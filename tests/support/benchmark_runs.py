"""Results of `benchmark` with planted raw samples, for comparisons and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.results import SCHEMA_VERSION, BenchmarkReport, MachineState, Timing
from ccr_deploy.core.metrics import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

EAGER = "PyTorch eager"
ENGINE = "openvino int8"
MEDIANS = {EAGER: 150.0, ENGINE: 60.0}


def planted_samples(
    seed: int, medians: Mapping[str, float] = MEDIANS, *, rounds: int = 15, runs: int = 6
) -> dict[str, npt.NDArray[np.float64]]:
    """Return samples in ms, ``float64 [rounds, runs]``, with the noise of a usual machine.

    The load of a round, with a standard deviation of 3 %, is common to all candidates; that of a candidate in
    a round is 2 %; single runs have a tail.
    """
    generator = np.random.default_rng(seed)
    load = generator.normal(0, 0.03, (rounds, 1))
    return {
        name: median
        * np.exp(load + generator.normal(0, 0.02, (rounds, 1)))
        * (1 + generator.exponential(0.04, (rounds, runs)))
        for name, median in medians.items()
    }


def timing(candidate: str, samples: npt.NDArray[np.float64], **values: object) -> Timing:
    """Return the statistics of samples."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    usual = {
        "subject": "chain",
        "is_target": candidate == ENGINE,
        "backend_version": "1.0",
        "runs": samples.size,
        "latency_ms_p50": p50,
        "latency_ms_p90": p90,
        "latency_ms_p99": p99,
        "latency_ms_mean": float(samples.mean()),
        "images_per_second": 1000 / float(samples.mean()),
        "peak_memory_mib": 100.0,
        "speedup": MEDIANS[EAGER] / p50,
        "speedup_interval": Interval(0.9 * MEDIANS[EAGER] / p50, 1.1 * MEDIANS[EAGER] / p50),
        "engines_sha256": ("ab" * 32,),
        "samples_ms": tuple(tuple(row) for row in samples.tolist()),
    }
    return Timing(candidate=candidate, **{**usual, **values})


def machine_state(**values: object) -> MachineState:
    """Return the state of a machine."""
    usual = {
        "processor": "a CPU",
        "usable_cores": 2,
        "memory_gib": 8.0,
        "operating_system": "Linux",
        "python": "3.11.2",
        "cpu_busy_percent": 1.0,
        "frequency_governor": None,
    }
    return MachineState(**{**usual, **values})


def benchmark_report(timings: tuple[Timing, ...], **values: object) -> BenchmarkReport:
    """Return the result of a run."""
    usual = {
        "schema_version": SCHEMA_VERSION,
        "created_by": "test",
        "bundle": "bundle",
        "contract_id": "0123456789abcdef",
        "weights_sha256": "0" * 64,
        "model": "224x224, T=8, cut layer1",
        "iterations": 8,
        "trained_iterations": (8,),
        "warnings": (),
        "target": "cpu",
        "batch": 1,
        "threads": 2,
        "rounds": len(timings[0].samples_ms) if timings else 15,
        "machine": machine_state(),
        "left_out": (),
        "reliable": True,
    }
    return BenchmarkReport(timings=timings, **{**usual, **values})


def planted_run(seed: int, medians: Mapping[str, float] = MEDIANS, **values: object) -> BenchmarkReport:
    """Return a run of the chain with planted samples; the first candidate is the control."""
    return benchmark_report(
        tuple(timing(name, samples) for name, samples in planted_samples(seed, medians).items()), **values
    )
