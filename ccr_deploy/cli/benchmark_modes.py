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
    opened,
    show_tables,
    stdout_console,
)
from ccr_deploy.cli.modes import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.store import EngineStore

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
    end_to_end: bool
    images: Path | None
    table1: bool
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

    if options.images and not options.end_to_end:
        raise click.UsageError("--images needs --end-to-end")
    if options.report:
        check_report_folder(options.report)
    result = benchmark_bundle(
        *options.opened(),
        precision=options.precision,
        batch=options.batch,
        rounds=options.rounds,
        require_idle=options.require_idle,
        end_to_end=options.end_to_end,
        images=options.images,
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


def _measure_table1(options: BenchmarkOptions) -> bool:
    from ccr_deploy.errors import MissingExtraError
    from ccr_deploy.reporting.table1_tables import table1_tables
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.workflow.report_folder import check_file, save_result

    if _is_given("bundle"):
        raise click.UsageError("--table1 exports models of its own: omit BUNDLE")
    if options.report:
        check_file(options.report / "table1.json")
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
    if options.report:
        save_result(options.report, "table1.json", result)
    if options.as_json:
        echo_json(result)
        return True
    for table in table1_tables(result):
        print_table(stdout_console(), table)
    return True


def _is_given(name: str) -> bool:
    """Return whether an argument or option is on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


_ENGINES = frozenset({"target", "precision", "engines"})

BENCHMARK = Mode(
    "bundle", _ENGINES | {"batch", "rounds", "require_idle", "end_to_end", "images", "report"}, _benchmark
)
MODES: tuple[Mode[BenchmarkOptions], ...] = (
    Mode("table1", frozenset({"target", "rounds", "report"}), _measure_table1),
)
"""The modes that an option selects, the first of them if there are several; else `BENCHMARK`."""
