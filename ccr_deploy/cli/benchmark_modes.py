"""The modes of ``ccr-deploy benchmark``: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    echo_json,
    echo_line,
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


_ENGINES = frozenset({"target", "precision", "engines"})

BENCHMARK = Mode(
    "bundle", _ENGINES | {"batch", "rounds", "require_idle", "end_to_end", "images", "report"}, _benchmark
)
MODES: tuple[Mode[BenchmarkOptions], ...] = (
    Mode("compare", frozenset({"results", "max_regression"}), _compare),
)
"""The modes that an option selects, the first of them if there are several; else `BENCHMARK`."""
