"""The modes of ``ccr-deploy benchmark``: the option that selects each, and the options that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.cli.common import TerminalProgress, opened, show_tables
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
    roofline: bool
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
        roofline=options.roofline,
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


_ENGINES = frozenset({"target", "precision", "engines"})

BENCHMARK = Mode("bundle", _ENGINES | {"batch", "rounds", "require_idle", "roofline", "report"}, _benchmark)
MODES: tuple[Mode[BenchmarkOptions], ...] = ()
"""The modes that an option selects, the first of them if there are several; else `BENCHMARK`."""
