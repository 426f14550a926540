"""Run every scenario and a soak of ``ccr-layer1``, 224x224, T=8, on a CPU.

``python -m benchmarks.scenarios`` runs the chain of untrained weights on the target ``cpu`` as ``ccr-deploy
benchmark --scenario`` and ``--soak`` do, and writes ``benchmarks/results/scenarios-ccr-layer1.json``. Each of
the five scenarios takes a minute, and the soak ten. The rate of *server* is half of that of *single-stream*,
its latency bound five times the median latency.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click
from msgspec import structs

from benchmarks.scaffold import MODEL, machine_words, publish, temporary_folder, untrained_bundle
from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.records import Record
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.scenario_tables import soak_tables
from ccr_deploy.reporting.table import Table, number
from ccr_deploy.workflow.scenarios import run_bundle_scenario
from ccr_deploy.workflow.soak import soak_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.bundle.reader import Bundle

SERVER_LOAD = 0.5
SERVER_BOUND = 5.0
BATCH = 8
FRAMES_PER_SECOND = 1.0


class ScenarioBenchmark(Record, frozen=True):
    """The result of each scenario, and of the soak."""

    schema_version: int
    scenarios: tuple[ScenarioResult, ...]
    soak: SoakResult


@click.command()
@click.option("--min-duration", type=float, default=60, show_default=True, help="Seconds of each scenario.")
@click.option("--soak", type=float, default=10, show_default=True, help="Minutes of the soak.")
def main(min_duration: float, soak: float) -> None:
    """Measure, and write the result beside this script."""
    with temporary_folder() as folder:
        bundle = untrained_bundle(MODEL, folder)
        result = _measured(bundle, EngineStore(folder / "engines"), min_duration, soak)
    publish("scenarios-ccr-layer1", result, scenarios_table(result), soak_table(result))


def _measured(bundle: Bundle, store: EngineStore, seconds: float, minutes: float) -> ScenarioBenchmark:
    progress = TerminalProgress()
    scenario = partial(run_bundle_scenario, bundle, "cpu", store, min_duration=seconds, progress=progress)
    single = scenario("single-stream")
    rate = round(SERVER_LOAD * single.samples_per_second, 1)
    bound = round(SERVER_BOUND * single.latencies.p50_ms)
    scenarios = (
        single,
        scenario("multi-stream"),
        scenario("server", rate=rate, latency_bound=bound),
        scenario("offline", batch=BATCH),
        scenario("paced", rate=FRAMES_PER_SECOND),
    )
    soak = soak_bundle(bundle, "cpu", store, minutes, progress=progress)
    name = f"{MODEL}, untrained"
    return ScenarioBenchmark(
        schema_version=1,
        scenarios=tuple(structs.replace(result, bundle=name) for result in scenarios),
        soak=structs.replace(soak, bundle=name),
    )


def scenarios_table(result: ScenarioBenchmark) -> Table:
    """Return a row for each scenario."""
    columns: list[tuple[str, Callable[[ScenarioResult], str]]] = [
        ("scenario", _load),
        ("queries", lambda entry: str(entry.queries)),
        ("p50 ms", lambda entry: number(entry.latencies.p50_ms, 1)),
        ("p90 ms", lambda entry: number(entry.latencies.p90_ms, 1)),
        ("p99 ms", lambda entry: number(entry.latencies.p99_ms, 1)),
        ("samples/s", lambda entry: number(entry.samples_per_second, 2)),
        ("LoadGen", _verdict),
        ("LoadGen's p50", lambda entry: _differs(entry, "p50 ms")),
        ("LoadGen's p90", lambda entry: _differs(entry, "p90 ms")),
        ("shows", _shows),
    ]
    first = result.scenarios[0]
    seconds = f"{first.settings.min_duration_seconds:.0f} s each"
    reasons = {reason for entry in result.scenarios for reason in entry.unreliable_reasons}
    return Table.of(
        "Scenarios of the chain",
        result.scenarios,
        columns,
        note=f"{MODEL}, untrained, {first.model}, target {first.target} in FP32; {seconds}, issued by "
        f"{', '.join(dict.fromkeys(entry.issued_by for entry in result.scenarios))}; "
        f"LoadGen: verdict, agreement with our clock, differences from our percentiles; "
        f"{machine_words(first.machine)}",
        warning=f"UNRELIABLE: {'; '.join(sorted(reasons))}" if reasons else "",
    )


def soak_table(result: ScenarioBenchmark) -> Table:
    """Return the series of the soak, with the verdicts below it."""
    series, drifts = soak_tables(result.soak)
    words = [f"{name} {change} ({interval}): {found}" for name, change, interval, _, found in drifts.rows]
    return replace(series, note=f"{series.note}; from the first to the last fifth: {', '.join(words)}")


def _load(result: ScenarioResult) -> str:
    settings = result.settings
    details = {
        "multi-stream": f", {settings.samples_per_query} samples per query",
        "server": f", {settings.rate_per_second:g}/s" if settings.rate_per_second else "",
        "offline": f", batch {result.batch}",
        "paced": f", {settings.rate_per_second:g} frames/s" if settings.rate_per_second else "",
    }
    return result.scenario + details.get(result.scenario, "")


def _verdict(result: ScenarioResult) -> str:
    """Return LoadGen's verdict, and whether its summary agrees with ours."""
    if result.loadgen is None:
        return ""
    verdict = "VALID" if result.loadgen.is_valid else "INVALID"
    return f"{verdict}, {'agrees' if result.loadgen.agrees else 'DIFFERS'}"


def _differs(result: ScenarioResult, quantity: str) -> str:
    """Return LoadGen's difference from our value of a quantity."""
    compared = result.loadgen.compared if result.loadgen else ()
    return next(
        (f"{entry.difference_percent:+.2f} %" for entry in compared if entry.quantity == quantity), ""
    )


def _shows(result: ScenarioResult) -> str:
    if result.paced:
        low, high = result.paced.ratio_interval.low, result.paced.ratio_interval.high
        return f"{result.paced.ratio:.2f} times the latency without pauses ({low:.2f} – {high:.2f})"
    if result.over_bound_percent is not None:
        return f"{result.over_bound_percent:.1f} % over {result.settings.latency_bound_ms:g} ms"
    rule = result.early_stopping
    if rule and rule.estimate_ms is not None:
        return f"p{rule.percentile:g} at most {rule.estimate_ms:.1f} ms, with 99 % confidence"
    return f"too few queries for p{rule.percentile:g}" if rule else "throughput"


if __name__ == "__main__":
    main()
