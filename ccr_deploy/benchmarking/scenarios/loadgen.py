"""Queries by MLPerf's LoadGen, in the process of the engines, and what it wrote about them."""

from __future__ import annotations

import json
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ccr_deploy.benchmarking.scenario_results import Latencies
from ccr_deploy.benchmarking.scenarios.messages import LoadGenLog, Measured
from ccr_deploy.benchmarking.scenarios.under_test import Arrival, BatchingQueue, in_batches
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.scenarios.under_test import Load
    from ccr_deploy.core.scenarios import Scenario

PACKAGE = "mlcommons-loadgen"
_NAMES: dict[Scenario, str] = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
_EXPECTED_SHARE = 0.5
"""LoadGen generates all queries in advance, from the expected latency: half of it, so that they suffice."""
_DETAIL_LOG = "mlperf_log_detail.txt"
_ENTRY = ":::MLLOG "
_PERCENTILES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")
_RATES = ("result_completed_samples_per_sec", "result_samples_per_second", "result_qps_with_loadgen_overhead")


def is_installed() -> bool:
    """Return whether LoadGen is installed: it has no wheels for Arm."""
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        return False
    return find_spec("mlperf_loadgen") is not None


class _Issued:
    """What LoadGen asked for, by our own clock: the callbacks of its system under test."""

    def __init__(self, load: Load) -> None:
        import mlperf_loadgen

        self._loadgen: Any = mlperf_loadgen
        self._system = load.system
        self._failed = load.failed
        self._first = 0
        self._last = 0
        self.taken: list[int] = []
        self.queries = 0
        self.samples = 0
        self.queue = BatchingQueue(load, self._completed) if load.scenario == "server" else None
        self._run = {"server": self._put, "offline": self._run_offline}.get(load.scenario, self._run_query)

    @property
    def duration(self) -> int:
        """The time from the first query to the last result, in nanoseconds."""
        return self._last - self._first

    def issue(self, samples: Sequence[Any]) -> None:
        """Take a query, and run it unless the queue does."""
        arrived = time.perf_counter_ns()
        self._first = self._first or arrived
        self.queries += 1
        self.samples += len(samples)
        try:
            self._run([Arrival(arrived, sample.index, sample.id) for sample in samples])
        except Exception as error:  # LoadGen, which called this, would abort
            self._failed(error)

    def flush(self) -> None:
        """Do nothing: no query waits for more."""

    def _put(self, samples: Sequence[Arrival]) -> None:
        assert self.queue
        for sample in samples:
            self.queue.put(sample)

    def _run_query(self, samples: Sequence[Arrival]) -> None:
        """Run all samples of a query; its latency is that of the last."""
        self._system.run_all([sample.index for sample in samples])
        self._last = time.perf_counter_ns()
        self.taken.append(self._last - samples[0].nanoseconds)
        self._respond(samples)

    def _run_offline(self, samples: Sequence[Arrival]) -> None:
        for batch in in_batches(samples, self._system.batch):
            self._system.run([sample.index for sample in batch])
            self._completed(batch)

    def _completed(self, samples: Sequence[Arrival]) -> None:
        self._last = time.perf_counter_ns()
        self.taken.extend(self._last - sample.nanoseconds for sample in samples)
        self._respond(samples)

    def _respond(self, samples: Sequence[Arrival]) -> None:
        response = self._loadgen.QuerySampleResponse
        self._loadgen.QuerySamplesComplete([response(sample.response_id, 0, 0) for sample in samples])


def issue_by_loadgen(load: Load, folder: Path) -> Measured:
    """Let LoadGen issue the queries of a scenario, and measure them with our own clock besides.

    Args:
        load: the scenario and the engines.
        folder: where LoadGen writes its logs. It is the caller's to remove: this process may exit in a run.

    Raises:
        EngineError: if LoadGen is too old to write what is compared.
    """
    import mlperf_loadgen

    installed = version(PACKAGE)
    issued = _Issued(load)
    logs = mlperf_loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.enable_trace = False
    under_test = mlperf_loadgen.ConstructSUT(issued.issue, issued.flush)
    library = mlperf_loadgen.ConstructQSL(load.settings.pool, load.settings.pool, _ignore, _ignore)
    wanted = _test_settings(mlperf_loadgen, load)
    # Without a path, an audit.config in the current folder would change the settings.
    mlperf_loadgen.StartTestWithLogSettings(under_test, library, wanted, logs, str(folder / "audit.config"))
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(under_test)
    text = (folder / _DETAIL_LOG).read_text(encoding="utf-8")
    if issued.queue:
        issued.queue.close()
    log = parse_log(text, load.scenario, installed)
    return Measured(tuple(issued.taken), issued.queries, issued.samples, issued.duration, log)


def parse_log(text: str, scenario: Scenario, installed: str) -> LoadGenLog:
    """Return what LoadGen's detail log says about a run.

    Args:
        text: the log: one JSON object per line, after a mark.
        scenario: the scenario of the run.
        installed: the version of LoadGen.

    Raises:
        EngineError: if a value is missing.
    """
    lines = [line for line in text.splitlines() if line.startswith(_ENTRY)]
    entries = [json.loads(line.removeprefix(_ENTRY)) for line in lines]
    values = {entry["key"]: entry["value"] for entry in entries}
    try:
        return _of_values(values, scenario, installed)
    except KeyError as error:
        raise EngineError(f"LoadGen {installed} wrote no {error.args[0]}: install {PACKAGE}>=6") from None


def _of_values(values: dict[str, Any], scenario: Scenario, installed: str) -> LoadGenLog:
    # In *multi-stream*, the log has the latencies of queries beside those of samples.
    of_queries = scenario == "multi-stream"
    names = [f"{p}_percentile{'_per_query' if of_queries else ''}" for p in _PERCENTILES]
    names += [f"{name}{'_query' if of_queries else ''}" for name in ("mean", "min", "max")]
    estimate = values.get("early_stopping_latency_ms" if of_queries else "early_stopping_latency_ss")
    reasons = {
        "the latency bound is not met": values.get("result_perf_constraints_met", True),
        "the shortest duration is not met": values["result_min_duration_met"],
        "the smallest number of queries is not met": values["result_min_queries_met"],
        "early stopping is not satisfied": values["early_stopping_met"],
    }
    return LoadGenLog(
        version=installed,
        is_valid=values["result_validity"] == "VALID",
        invalid_reasons=tuple(reason for reason, is_met in reasons.items() if not is_met),
        queries=int(values["result_query_count"]),
        latencies=Latencies(*(float(values[f"result_{name}_latency_ns"]) / 1e6 for name in names)),
        per_second=next((float(values[name]) for name in _RATES if name in values), None),
        early_stopping_met=None if scenario == "offline" else bool(values["early_stopping_met"]),
        early_stopping_estimate_ms=float(estimate) / 1e6 if estimate else None,
    )


def _test_settings(
    loadgen: Any,  # noqa: ANN401 -- it has no types
    load: Load,
) -> Any:  # noqa: ANN401
    scenario, settings, seconds_per_sample = load.scenario, load.settings, load.seconds_per_sample
    wanted = loadgen.TestSettings()
    wanted.scenario = getattr(loadgen.TestScenario, _NAMES[scenario])
    wanted.mode = loadgen.TestMode.PerformanceOnly
    wanted.min_duration_ms = round(settings.min_duration_seconds * 1000)
    wanted.min_query_count = settings.min_queries
    wanted.qsl_rng_seed = wanted.sample_index_rng_seed = wanted.schedule_rng_seed = settings.seed
    expected = round(seconds_per_sample * _EXPECTED_SHARE * 1e9)
    percentile = (settings.target_percentile or 0) / 100
    if scenario == "single-stream":
        wanted.single_stream_expected_latency_ns = expected
        wanted.single_stream_target_latency_percentile = percentile
    elif scenario == "multi-stream":
        wanted.multi_stream_samples_per_query = settings.samples_per_query
        wanted.multi_stream_expected_latency_ns = expected * (settings.samples_per_query or 1)
        wanted.multi_stream_target_latency_percentile = percentile
    elif scenario == "server":
        wanted.server_target_qps = settings.rate_per_second
        wanted.server_target_latency_percentile = percentile
        # LoadGen needs a bound: without one, a bound that no query exceeds.
        wanted.server_target_latency_ns = round((settings.latency_bound_ms or 1e9) * 1e6)
    else:
        # LoadGen multiplies by `generator.OFFLINE_SLACK` itself.
        wanted.offline_expected_qps = 1 / seconds_per_sample
    return wanted


def _ignore(_: Sequence[int]) -> None:
    """Do nothing: the pool is in memory."""
