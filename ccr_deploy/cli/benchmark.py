"""``ccr-deploy benchmark``."""

from __future__ import annotations

import click

from ccr_deploy.cli.benchmark_modes import BENCHMARK, CHECK_FAILED, MODES, BenchmarkOptions
from ccr_deploy.cli.common import (
    PATH,
    bundle_argument,
    engines_option,
    output_options,
    path_option,
    precision_options,
    report_option,
    target_option,
)
from ccr_deploy.cli.modes import chosen_mode
from ccr_deploy.core.scenarios import SCENARIOS
from ccr_deploy.core.stages import CHAIN_STAGES


@click.command(short_help="Measure the speed-up of the engines over PyTorch.")
@bundle_argument
@click.argument("results", type=PATH, nargs=-1, metavar="")
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
    help="Rounds; each times every candidate once.",
)
@click.option(
    "--require-idle",
    is_flag=True,
    help="Exit with status 1 if the machine is busy before or during the run.",
)
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    metavar="NAME",
    help="Only a scenario: single-stream, multi-stream, server, offline, paced.",
)
@click.option(
    "--soak",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="Only a run without pauses: latency and sensors over time.",
)
@click.option(
    "--subject",
    type=click.Choice((*CHAIN_STAGES, "chain")),
    metavar="NAME",
    default="chain",
    help="Of --scenario, --soak: encoder, classifier or chain.  [default: chain]",
)
@click.option(
    "--min-duration",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    default=10,
    show_default=True,
    help="Shortest scenario; MLPerf asks for 600.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    metavar="N",
    help="Queries of server or paced's frames (10) per second.",
)
@click.option(
    "--latency-bound",
    type=click.FloatRange(0, min_open=True),
    metavar="MS",
    help="Longest latency of 99 % of server's queries.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="Samples per query of multi-stream.  [default: 8]",
)
@click.option("--compare", is_flag=True, help="Only compare the results A.json and B.json.")
@click.option(
    "--max-regression",
    type=click.FloatRange(min=0),
    metavar="PERCENT",
    help="With --compare: largest accepted slow-down of the engines.",
)
@click.option(
    "--end-to-end", is_flag=True, help="Also measure the chain from image file to label, step by step."
)
@path_option("--images", "DIR", "Image files for --end-to-end.  [default: the bundle's samples as JPEG]")
@click.option("--roofline", is_flag=True, help="Also measure this machine's limits, and the share reached.")
@click.option("--table1", is_flag=True, help="Only the paper's Table 1 on this machine; needs no BUNDLE.")
@engines_option
@report_option
@output_options
@click.pass_context
def benchmark(ctx: click.Context, /, **_: object) -> None:
    """Measure the latency of a target's engines and their speed-up over PyTorch.

    Candidates run in their own processes, in interleaved rounds. Without a precision option, the target's
    engines are those that build-engine built last; missing ones are built. A disturbed run is unreliable and
    has no speed-ups. BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Examples:
      ccr-deploy benchmark bundle --report report/
      ccr-deploy benchmark --compare A.json B.json --max-regression 5
    """
    if not chosen_mode(ctx, MODES, BENCHMARK).run(BenchmarkOptions(**ctx.params)):
        ctx.exit(CHECK_FAILED)
