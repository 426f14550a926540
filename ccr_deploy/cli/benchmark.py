"""``ccr-deploy benchmark``."""

from __future__ import annotations

import click

from ccr_deploy.cli.benchmark_modes import BENCHMARK, CHECK_FAILED, MODES, BenchmarkOptions
from ccr_deploy.cli.common import (
    bundle_argument,
    engines_option,
    output_options,
    precision_options,
    report_option,
    target_option,
)
from ccr_deploy.cli.modes import chosen_mode


@click.command(short_help="Measure the speed-up of the engines over PyTorch.")
@bundle_argument
@target_option
@precision_options
@click.option(
    "--batch", type=click.IntRange(1, 4096), metavar="N", default=1, show_default=True, help="Images per run."
)
@click.option(
    "--rounds",
    type=click.IntRange(2, 1000),
    metavar="N",
    default=15,
    show_default=True,
    help="Number of rounds; each round times every candidate once.",
)
@click.option(
    "--require-idle",
    is_flag=True,
    help="Exit with status 1 if the machine is busy: before the start, or after the results are printed.",
)
@click.option("--roofline", is_flag=True, help="Also measure this machine's limits, and the share reached.")
@engines_option
@report_option
@output_options
@click.pass_context
def benchmark(ctx: click.Context, /, **_: object) -> None:
    """Measure the latency of a target's engines and their speed-up over PyTorch.

    The baseline is PyTorch eager; on a GPU, torch.compile and FP16 CUDA graphs are timed too. Each
    candidate runs in its own process, and their rounds are interleaved. The speed-up is a ratio of medians
    with a 95 % interval.
    Without a precision option, the target's engines are those that build-engine built last; other
    precisions that this machine supports natively are timed as well. Missing engines are built first.

    If other processes, the hypervisor or a container's CPU limit took cores from the run, if its times
    vary too much, or if the GPU's clock fell, the run is unreliable: latencies are printed with the
    reasons, speed-ups are not.

    BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Examples:
      ccr-deploy benchmark bundle --rounds 30 --report report/
      ccr-deploy benchmark bundle --require-idle
    """
    if not chosen_mode(ctx, MODES, BENCHMARK).run(BenchmarkOptions(**ctx.params)):
        ctx.exit(CHECK_FAILED)
