"""``ccr-deploy benchmark``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    engines_option,
    opened,
    output_options,
    precision_options,
    report_option,
    show_tables,
    target_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import EnginePrecision


@click.command()
@bundle_argument
@target_option
@precision_options
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images in one run."
)
@click.option(
    "--rounds",
    type=click.IntRange(2, 1000),
    default=15,
    show_default=True,
    help="Rounds; each times every candidate once.",
)
@click.option(
    "--require-idle",
    is_flag=True,
    help="Exit status 1 where the machine is not idle: at once before the start, else after the result.",
)
@engines_option
@report_option
@output_options
def benchmark(
    bundle: Path,
    target: str | None,
    precision: EnginePrecision | None,
    batch: int,
    rounds: int,
    require_idle: bool,
    engines: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure how much faster a target's engines are than PyTorch eager, on a GPU also than torch.compile.

    Each candidate runs in a process of its own, and all are interleaved in one run. The speed-up is a
    ratio of medians with its 95 % interval. The target's engines are in the precision that build-engine
    built last; the other precisions that this machine has instructions for are timed beside them.
    Engines that the store lacks are built first.

    A run is unreliable where other processes, the hypervisor or a container's CPU limit withheld cores from
    it, or where its times scatter too much. It says so and gives no speed-up; its latencies are shown.

    \b
    Examples:
      ccr-deploy benchmark bundle --rounds 30 --report report/
      ccr-deploy benchmark bundle --require-idle
    """
    from ccr_deploy.errors import MachineBusyError
    from ccr_deploy.reporting.tables import benchmark_tables
    from ccr_deploy.workflow.benchmark import benchmark_bundle
    from ccr_deploy.workflow.report_folder import check_report_folder

    if report:
        check_report_folder(report)
    result = benchmark_bundle(
        *opened(bundle, target, engines, as_json=as_json),
        precision=precision,
        batch=batch,
        rounds=rounds,
        require_idle=require_idle,
        progress=TerminalProgress(),
    )
    show_tables(result, benchmark_tables(result), report, as_json=as_json, with_summary=True)
    if require_idle and result.unreliable_reasons:
        raise MachineBusyError(
            f"the run is unreliable: {'; '.join(result.unreliable_reasons)}: end what else runs here"
        )
