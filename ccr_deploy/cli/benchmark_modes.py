"""The modes of ``ccr-deploy benchmark``: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ccr_deploy.cli.common import (
    TerminalProgress,
    chosen_target,
    echo_json,
    echo_line,
    opened,
    stdout_console,
)
from ccr_deploy.cli.modes import Mode
from ccr_deploy.cli.results import check_report, show_result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.benchmarking.scenario_results import ScenarioResult, SoakResult
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.scenarios import Scenario
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.workflow.report_folder import Result

CHECK_FAILED = 1


@dataclass(frozen=True)
class BenchmarkOptions:
    """The values of all arguments and options of the command, by their names."""

    bundle: Path
    results: tuple[Path, ...]
    target: str | None
    precision: EnginePrecision | None
    batch: int
    rounds: int
    require_idle: bool
    compare: bool
    max_regression: float | None
    end_to_end: bool
    images: Path | None
    scenario: Scenario | None
    soak: float | None
    subject: Subject
    min_duration: float
    rate: float | None
    latency_bound: float | None
    streams: int | None
    table1: bool
    roofline: bool
    engines: Path | None
    report: Path | None
    as_json: bool

    def opened(self) -> tuple[Bundle, str, EngineStore]:
        """Return the bundle, the target and the engine store."""
        return opened(self.bundle, self.target, self.engines, as_json=self.as_json)

    def show(self, result: Result, tables: Sequence[Table], warnings: Sequence[str] = ()) -> None:
        """Print a result, and save it in the report folder, if there is one.

        Args:
            result: the result, which is printed with `as_json`.
            tables: the result as tables, which are printed otherwise.
            warnings: lines that are printed before the tables.
        """
        show_result(result, tables, self.report, as_json=self.as_json, warnings=warnings)


def _benchmark(options: BenchmarkOptions) -> bool:
    from ccr_deploy.errors import MachineBusyError
    from ccr_deploy.reporting.tables import benchmark_tables
    from ccr_deploy.workflow.benchmark import benchmark_bundle

    if options.images and not options.end_to_end:
        raise click.UsageError("--images needs --end-to-end")
    check_report(options.report)
    result = benchmark_bundle(
        *options.opened(),
        precision=options.precision,
        batch=options.batch,
        rounds=options.rounds,
        require_idle=options.require_idle,
        end_to_end=options.end_to_end,
        images=options.images,
        roofline=options.roofline,
        progress=TerminalProgress(),
    )
    show_result(
        result,
        benchmark_tables(result),
        options.report,
        as_json=options.as_json,
        warnings=result.warnings,
        with_summary=True,
    )
    if options.require_idle and result.unreliable_reasons:
        raise MachineBusyError(
            f"the run is unreliable: {'; '.join(result.unreliable_reasons)}: stop other work on this machine "
            "and run the benchmark again"
        )
    return True


def _compare(options: BenchmarkOptions) -> bool:
    from ccr_deploy.benchmarking.comparison import compare_runs, read_run
    from ccr_deploy.reporting.comparison_tables import comparison_tables
    from ccr_deploy.reporting.terminal import print_table

    # With --compare, the first argument is a result instead of the bundle.
    paths = (options.bundle, *options.results)
    if len(paths) != 2:
        raise click.UsageError("--compare accepts exactly two results of benchmark: A.json and B.json")
    first, second = (read_run(path) for path in paths)
    comparison = compare_runs(
        first,
        second,
        names=(str(paths[0]), str(paths[1])),
        max_regression_percent=options.max_regression,
    )
    if options.as_json:
        echo_json(comparison)
    else:
        for table in comparison_tables(comparison):
            print_table(stdout_console(), table)
    for line in comparison.not_excluded:
        echo_line(f"ccr-deploy: {line}", err=True)
    if comparison.failures:
        echo_line(f"ccr-deploy: --max-regression: {'; '.join(comparison.failures)}", err=True)
    return not comparison.failures


_SCENARIO_OPTIONS: dict[Scenario, frozenset[str]] = {
    "single-stream": frozenset(),
    "multi-stream": frozenset({"streams", "batch"}),
    "server": frozenset({"rate", "latency_bound", "batch"}),
    "offline": frozenset({"batch"}),
    "paced": frozenset({"rate"}),
}
"""The options that only some scenarios accept."""


def _run_scenario(options: BenchmarkOptions) -> bool:
    from ccr_deploy.reporting.scenario_tables import scenario_tables
    from ccr_deploy.workflow.scenarios import FRAMES_PER_SECOND, run_bundle_scenario

    scenario = options.scenario
    assert scenario
    _check_scenario_options(scenario, options)
    check_report(options.report)
    result = run_bundle_scenario(
        *options.opened(),
        scenario,
        subject=options.subject,
        precision=options.precision,
        batch=options.batch,
        min_duration=options.min_duration,
        rate=FRAMES_PER_SECOND if scenario == "paced" and options.rate is None else options.rate,
        latency_bound=options.latency_bound,
        streams=options.streams,
        progress=TerminalProgress(),
    )
    options.show(result, scenario_tables(result), result.warnings)
    return _answers_passed(result)


def _answers_passed(result: ScenarioResult | SoakResult) -> bool:
    """Return whether the answers were those before the run; print why not."""
    from ccr_deploy.benchmarking.answers import wrong_answers

    if result.answers is None or result.answers.passed:
        return True
    line = wrong_answers(f"{result.subject}: {result.target}", result.answers)
    echo_line(f"ccr-deploy: {line}", err=True)
    return False


def _check_scenario_options(scenario: Scenario, options: BenchmarkOptions) -> None:
    given = {
        "rate": options.rate is not None,
        "latency_bound": options.latency_bound is not None,
        "streams": options.streams is not None,
        "batch": options.batch > 1,
    }
    for name in (name for name, is_given in given.items() if is_given):
        if name not in _SCENARIO_OPTIONS[scenario]:
            option = name.replace("_", "-")
            raise click.UsageError(f"--scenario {scenario} does not accept --{option}: omit it")
    if scenario == "server" and options.rate is None:
        raise click.UsageError("--scenario server needs --rate N, the mean number of queries per second")


def _soak(options: BenchmarkOptions) -> bool:
    from ccr_deploy.reporting.scenario_tables import soak_tables
    from ccr_deploy.workflow.soak import soak_bundle

    assert options.soak
    check_report(options.report)
    result = soak_bundle(
        *options.opened(),
        options.soak,
        subject=options.subject,
        precision=options.precision,
        batch=options.batch,
        progress=TerminalProgress(),
    )
    options.show(result, soak_tables(result), result.warnings)
    return _answers_passed(result)


def _measure_table1(options: BenchmarkOptions) -> bool:
    from ccr_deploy.errors import MissingExtraError
    from ccr_deploy.reporting.table1_tables import table1_tables

    if _is_given("bundle"):
        raise click.UsageError("--table1 exports models of its own: omit BUNDLE")
    check_report(options.report)
    target = chosen_target(options.target, quiet=options.as_json)
    try:
        from ccr_deploy.workflow.table1 import ROUNDS, measure_table1
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "benchmark --table1") from error
    result = measure_table1(
        target,
        rounds=options.rounds if _is_given("rounds") else ROUNDS,
        progress=TerminalProgress(),
    )
    options.show(result, table1_tables(result))
    return True


def _is_given(name: str) -> bool:
    """Return whether an argument or option is on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


_ENGINES = frozenset({"target", "precision", "engines"})

BENCHMARK = Mode(
    "bundle",
    _ENGINES | {"batch", "rounds", "require_idle", "end_to_end", "images", "roofline", "report"},
    _benchmark,
)
MODES: tuple[Mode[BenchmarkOptions], ...] = (
    Mode("compare", frozenset({"results", "max_regression"}), _compare),
    Mode(
        "scenario",
        _ENGINES | {"batch", "subject", "min_duration", "rate", "latency_bound", "streams", "report"},
        _run_scenario,
    ),
    Mode("soak", _ENGINES | {"batch", "subject", "report"}, _soak),
    Mode("table1", frozenset({"target", "rounds", "report"}), _measure_table1),
)
"""The modes that an option selects, the first of them if there are several; else `BENCHMARK`."""
