"""``ccr-deploy benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    chosen_target,
    echo_json,
    engines_option,
    json_option,
    precision_options,
    report_option,
    stdout_console,
    target_option,
    verbose_option,
)

if TYPE_CHECKING:
    from ccr_deploy.precisions import EnginePrecision


@click.command()
@bundle_argument
@target_option
@precision_options
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images in one run."
)
@click.option(
    "--rounds", type=click.IntRange(2, 1000), default=15, show_default=True, help="Turns of each competitor."
)
@engines_option
@report_option
@json_option
@verbose_option
def benchmark(
    bundle: Path,
    target: str | None,
    precision: EnginePrecision | None,
    batch: int,
    rounds: int,
    engines: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure how much faster a target's engines are than PyTorch eager, on a GPU also than torch.compile.

    Each competitor runs in a process of its own, and all take turns within one run. The speed-up is a
    ratio of medians with its 95 % interval. The target's engines are in the precision that build-engine
    built last; the other precisions that this machine has instructions for are timed beside them.
    Engines that the store lacks are built first.

    \b
    Example:
      ccr-deploy benchmark bundle --rounds 30 --report report/
    """
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.engine_store import EngineStore
    from ccr_deploy.report_folder import add_to_folder, to_json
    from ccr_deploy.reporting.tables import benchmark_tables
    from ccr_deploy.reporting.terminal import print_table, print_warnings
    from ccr_deploy.workflow.benchmark import benchmark_bundle

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    result = benchmark_bundle(
        Bundle.open(bundle),
        name,
        EngineStore.default(engines),
        precision=precision,
        batch=batch,
        rounds=rounds,
        progress=TerminalProgress(),
    )
    summary = add_to_folder(report, result) if report else None
    if as_json:
        echo_json(json.loads(to_json(result)))
        return
    print_warnings(console, result.warnings)
    for table in benchmark_tables(result):
        print_table(console, table)
    if summary:
        print_table(console, summary)
    if report:
        console.print(f"report: {report / 'report.html'}", markup=False)
