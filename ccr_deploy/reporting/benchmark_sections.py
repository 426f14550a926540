"""The sections of the HTML report on results of `benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.evidence import joined_table
from ccr_deploy.reporting.latency_plots import LatencyRow, latency_plot, steps_plot
from ccr_deploy.reporting.pareto import pareto, pareto_table
from ccr_deploy.reporting.plots import speedup_plot
from ccr_deploy.reporting.roofline_table import roofline_table
from ccr_deploy.reporting.run_plots import soak_plot, table1_plot
from ccr_deploy.reporting.scenario_tables import scenario_tables, soak_tables
from ccr_deploy.reporting.section import Section
from ccr_deploy.reporting.stage_tables import steps_table
from ccr_deploy.reporting.table1_tables import table1_tables
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.tradeoff_plots import pareto_plot, roofline_plot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport, Subject
    from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
    from ccr_deploy.benchmarking.table1_results import Table1
    from ccr_deploy.reporting.results import Results
    from ccr_deploy.verification.results import VerificationReport

_DISTRIBUTIONS = (
    "Histograms of all raw samples; dots: the slowest ones, beyond p99. Coloured: the engines of the target."
)


def benchmark_sections(results: Results) -> Iterator[Section]:
    """Yield the sections on speed: what decides first, then details."""
    verification, benchmark = results.verification, results.benchmark
    if verification and benchmark:
        summary = joined_table(verification, benchmark)
        yield Section(summary.title, table=summary)
        yield from _pareto(verification, benchmark)
    if benchmark:
        yield from _speed(benchmark)
    if results.scenarios:
        yield from _scenarios(results.scenarios)
    if results.soak:
        yield from _soak(results.soak)
    if results.table1:
        yield from _table1(results.table1)


def _pareto(verification: VerificationReport, benchmark: BenchmarkReport) -> Iterator[Section]:
    found = pareto(verification, benchmark)
    if found is None:
        return
    table = pareto_table(found)
    text = (
        "Up and left is better; dashed: the Pareto front, the candidates that no other one beats in both. "
        f"Filled: accuracy of the timed engines, measured on {verification.image_count} images. Hollow: "
        "predicted with the graphs, for engines that were not verified."
    )
    if any(point.interval for point in found.points):
        text += " Bars: 95 % intervals of the accuracy."
    plots = pareto_plot(found, "latency") + pareto_plot(found, "size")
    yield Section(table.title, text, plots, table)


def _speed(benchmark: BenchmarkReport) -> Iterator[Section]:
    table, *others = benchmark_tables(benchmark)
    plot = speedup_plot(benchmark)
    text = (
        f"Ratio of PyTorch eager's median latency to the candidate's, with its 95 % interval, batch "
        f"{benchmark.batch}. Coloured: the engines of the target {benchmark.target}."
    )
    yield Section(table.title, text if plot else "", plot, table)
    yield from _distributions(benchmark)
    plots = dict(_plots(benchmark))
    for other in others:
        text, plot = plots.get(other.title, ("", ""))
        yield Section(other.title, text, plot, other)


def _plots(benchmark: BenchmarkReport) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield titles of further tables, each with the text and the plot of its section."""
    if steps := benchmark.end_to_end:
        text = (
            "Medians of the steps of one image, in one process. Sum: of the steps of each run; chain: other "
            "runs without time stamps between the steps."
        )
        yield steps_table(steps).title, (text, steps_plot(steps))
    if (limits := benchmark.roofline) and (plot := roofline_plot(limits)):
        text = (
            "Black: the measured limits of the machine. An engine is a horizontal line from the bytes that "
            "its graph reads and writes to the bytes that are left if caches and fusion save all others; its "
            "height is the rate that it reached. Coloured: the engines of the target."
        )
        yield roofline_table(limits).title, (text, plot)


def _distributions(benchmark: BenchmarkReport) -> Iterator[Section]:
    subjects: dict[Subject, list[LatencyRow]] = {}
    for timing in benchmark.timings:
        samples = [sample for own in timing.samples_ms for sample in own]
        if samples:
            percentiles = (timing.latency_ms_p50, timing.latency_ms_p90, timing.latency_ms_p99)
            row = LatencyRow(timing.candidate, timing.is_target, samples, percentiles)
            subjects.setdefault(timing.subject, []).append(row)
    plots = "".join(latency_plot(subject, rows) for subject, rows in subjects.items())
    if plots:
        yield Section("Latency distributions", f"{_DISTRIBUTIONS} Batch {benchmark.batch}.", plots)


def _scenarios(scenarios: Sequence[ScenarioResult]) -> Iterator[Section]:
    rows = [
        LatencyRow(
            f"{result.scenario}: {result.subject}",
            True,
            result.samples_ms,
            (result.latencies.p50_ms, result.latencies.p90_ms, result.latencies.p99_ms),
            result.settings.latency_bound_ms,
        )
        for result in scenarios
        if result.samples_ms
    ]
    if rows:
        text = (
            "Histograms of all raw latencies, from the arrival of a query to its last result. Red: the "
            "latency bound."
        )
        yield Section("Scenarios", text, latency_plot("scenarios", rows))
    for result in scenarios:
        first, *others = scenario_tables(result)
        yield Section(first.title, table=first)
        for table in others:
            yield Section(f"{table.title}: {result.scenario}", table=table)


def _soak(soak: SoakResult) -> Iterator[Section]:
    first, *others = soak_tables(soak)
    seconds = soak.intervals[0].duration_seconds if soak.intervals else 0
    text = f"Percentiles of all runs in intervals of {seconds:.0f} s, without pauses in between."
    plot = soak_plot(soak)
    yield Section(first.title, text if plot else "", plot, first)
    for table in others:
        yield Section(table.title, table=table)


def _table1(table1: Table1) -> Iterator[Section]:
    first, *others = table1_tables(table1)
    plot = table1_plot(table1)
    text = (
        "How much shorter the time of each model is than the baseline's in the same runtime and precision, "
        "with 95 % intervals, beside the paper's. The architecture is a reconstruction that fits the paper's "
        "parameters, not its times."
    )
    yield Section(first.title, text if plot else "", plot, first)
    for table in others:
        yield Section(table.title, table=table)
