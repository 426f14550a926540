"""The modes of ``ccr-deploy benchmark``: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import TerminalProgress, echo_json, opened, show_tables, stdout_console
from ccr_deploy.cli.modes import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.benchmarking.scenario_results import EngineRun
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.scenarios import Scenario
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.reporting.table import Table

CHECK_FAILED = 1


@dataclass(frozen=True)
class BenchmarkOptions:
    """The values of all arguments and options of the command, by their names."""

    bundle: Path
    target: str | None
    precision: EnginePrecision | None
    batch: int
    rounds: int
    require_idle: bool
    scenario: Scenario | None
    soak: float | None
    subject: Subject
    min_duration: float
    rate: float | None
    latency_bound: float | None
    streams: int | None
    engines: Path | None
    report: Path | None
    as_json: bool

    def opened(self) -> tuple[Bundle, str, EngineStore]:
        """Return the bundle, the target and the engine store."""
        return opened(self.bundle, self.target, self.engines, as_json=self.as_json)


def _benchmark(options: BenchmarkOptions) -> bool:
    from ccr_deploy.errors import MachineBusyError
    from ccr_deploy.reporting.tables import benchmark_tables
    from ccr_deploy.workflow.benchmark import benchmark_bundle
    from ccr_deploy.workflow.report_folder import check_report_folder

    if options.report:
        check_report_folder(options.report)
    result = benchmark_bundle(
        *options.opened(),
        precision=options.precision,
        batch=options.batch,
        rounds=options.rounds,
        require_idle=options.require_idle,
        progress=TerminalProgress(),
    )
    tables = benchmark_tables(result)
    show_tables(result, tables, options.report, as_json=options.as_json, with_summary=True)
    if options.require_idle and result.unreliable_reasons:
        raise MachineBusyError(
            f"the run is unreliable: {'; '.join(result.unreliable_reasons)}: stop other work on this machine "
            "and run the benchmark again"
        )
    return True


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
    name = f"scenario-{scenario}.json"
    _check_result_file(options, name)
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
    _show(options, name, result, scenario_tables(result))
    return True


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
    from ccr_deploy.workflow.scenarios import soak_bundle

    assert options.soak
    _check_result_file(options, "soak.json")
    result = soak_bundle(
        *options.opened(),
        options.soak,
        subject=options.subject,
        precision=options.precision,
        batch=options.batch,
        progress=TerminalProgress(),
    )
    _show(options, "soak.json", result, soak_tables(result))
    return True


def _check_result_file(options: BenchmarkOptions, name: str) -> None:
    """Raise an error before a long run if its result could not be saved."""
    from ccr_deploy.workflow.report_folder import check_file

    if options.report:
        check_file(options.report / name)


def _show(options: BenchmarkOptions, name: str, result: EngineRun, tables: Sequence[Table]) -> None:
    """Print a result, and save it in the report folder if there is one."""
    from ccr_deploy.reporting.terminal import print_table, print_warnings
    from ccr_deploy.workflow.report_folder import save_result

    # First of all: a pipe that closes must not lose the result of a long run.
    saved = save_result(options.report, name, result) if options.report else None
    if options.as_json:
        echo_json(result)
        return
    console = stdout_console()
    print_warnings(console, result.warnings)
    for table in tables:
        print_table(console, table)
    if saved:
        console.print(f"report: {saved}")


_ENGINES = frozenset({"target", "precision", "engines"})

BENCHMARK = Mode("bundle", _ENGINES | {"batch", "rounds", "require_idle", "report"}, _benchmark)
MODES: tuple[Mode[BenchmarkOptions], ...] = (
    Mode(
        "scenario",
        _ENGINES | {"batch", "subject", "min_duration", "rate", "latency_bound", "streams", "report"},
        _run_scenario,
    ),
    Mode("soak", _ENGINES | {"batch", "subject", "report"}, _soak),
)
"""The modes that an option selects, the first of them if there are several; else `BENCHMARK`."""
