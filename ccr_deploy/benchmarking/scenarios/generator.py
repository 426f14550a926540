"""Queries by ccr-deploy itself, as LoadGen defines them, where LoadGen is not installed.

* *single-stream*: a query of one sample; the next one when it is done.
* *multi-stream*: the same with several samples per query, one of each camera.
* *server*: queries of one sample, which arrive by a Poisson process.
* *offline*: all samples in one query.

Each sample is drawn from the pool with replacement, as LoadGen does. The draws depend on the seed alone.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.scenarios.messages import Measured
from ccr_deploy.benchmarking.scenarios.under_test import Arrival, BatchingQueue, in_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.scenario_results import ScenarioSettings
    from ccr_deploy.benchmarking.scenarios.under_test import Load, SystemUnderTest

OFFLINE_SLACK = 1.1
"""LoadGen's factor on the number of samples that the expected rate needs."""


def issue(load: Load) -> Measured:
    """Issue the queries of a scenario.

    Raises:
        EngineError: if a run fails.
    """
    if load.scenario == "server":
        return _server(load)
    if load.scenario == "offline":
        return _offline(load)
    return _stream(load.system, load.settings)


def offline_samples(settings: ScenarioSettings, seconds_per_sample: float) -> int:
    """Return the number of samples of *offline* that takes the shortest duration."""
    expected = settings.min_duration_seconds / seconds_per_sample
    return max(settings.min_queries, math.ceil(expected * OFFLINE_SLACK))


def poisson_schedule(rate: float, seconds: float, seed: int) -> npt.NDArray[np.float64]:
    """Return the arrival times of a Poisson process in seconds from the start, ``float64 [queries]``.

    The times between two arrivals are exponentially distributed. As in LoadGen, the last arrival is the first
    one that is not before the end.

    Args:
        rate: mean number of arrivals per second.
        seconds: end of the schedule.
        seed: seed of the draws.
    """
    generator = np.random.default_rng(seed)
    parts: list[npt.NDArray[np.float64]] = []
    last = 0.0
    while not parts or last < seconds:
        # Many at a time: an hour at 1,000 queries per second has 3.6 million.
        parts.append(last + np.cumsum(generator.exponential(1 / rate, size=4096)))
        last = float(parts[-1][-1])
    arrivals = np.concatenate(parts)
    return arrivals[: int(np.searchsorted(arrivals, seconds)) + 1]


def _stream(system: SystemUnderTest, settings: ScenarioSettings) -> Measured:
    generator = np.random.default_rng(settings.seed)
    taken: list[int] = []
    assert settings.samples_per_query
    start = done = time.perf_counter_ns()
    while done - start < settings.min_duration_seconds * 1e9 or len(taken) < settings.min_queries:
        indices = generator.integers(settings.pool, size=settings.samples_per_query).tolist()
        issued = time.perf_counter_ns()
        system.run_all(indices)
        done = time.perf_counter_ns()
        taken.append(done - issued)
    return Measured(tuple(taken), len(taken), len(taken) * settings.samples_per_query, done - start)


def _offline(load: Load) -> Measured:
    system, settings = load.system, load.settings
    samples = offline_samples(settings, load.seconds_per_sample)
    indices = np.random.default_rng(settings.seed).integers(settings.pool, size=samples).tolist()
    taken: list[int] = []
    start = time.perf_counter_ns()
    for batch in in_batches(indices, system.batch):
        system.run(batch)
        taken += [time.perf_counter_ns() - start] * len(batch)
    return Measured(tuple(taken), 1, samples, taken[-1])


def _server(load: Load) -> Measured:
    settings = load.settings
    assert settings.rate_per_second
    schedule = poisson_schedule(settings.rate_per_second, settings.min_duration_seconds, settings.seed)
    indices = np.random.default_rng([settings.seed, 1]).integers(settings.pool, size=len(schedule)).tolist()
    taken: list[int] = []
    last = 0

    def completed(arrivals: Sequence[Arrival]) -> None:
        nonlocal last
        last = time.perf_counter_ns()
        taken.extend(last - arrival.nanoseconds for arrival in arrivals)

    waiting = BatchingQueue(load, completed)
    start = time.perf_counter_ns()
    for offset, index in zip((schedule * 1e9).astype(np.int64).tolist(), indices, strict=True):
        time.sleep(max(0, start + offset - time.perf_counter_ns()) / 1e9)
        # The latency counts from the schedule, as LoadGen's: a late generator hides no waiting.
        waiting.put(Arrival(start + offset, index))
    waiting.close()
    return Measured(tuple(taken), len(taken), len(taken), last - start)
