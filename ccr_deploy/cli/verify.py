"""``ccr-deploy verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    PATH,
    bundle_argument,
    engines_option,
    output_options,
    path_option,
    precision_options,
    report_option,
    shard_option,
    target_option,
)
from ccr_deploy.cli.modes import chosen_mode
from ccr_deploy.cli.verify_modes import (
    GATE_FAILED,
    LIST_GATES,
    MODES,
    VERIFY,
    VerifyOptions,
    print_gates,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.cli.common import Command


def _flag(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, is_flag=True, help=text)


@click.command(short_help="Compare the engines of a target with the checkpoint.")
@bundle_argument
@click.argument("results", type=PATH, nargs=-1, metavar="")
@target_option
@precision_options
@path_option("--images", "DIR", "Images; sub-folders are classes.  [default: the bundle's sample images]")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME=LIMIT",
    help="Set the limit of a gate; repeatable.  list: print the gates.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of images.  [default: all; 64 for --export-golden]",
)
@_flag("--matrix", "Also run every encoder precision with every classifier precision.")
@path_option("--golden", "FILE", "Compare with a golden file instead; needs no PyTorch and no images.")
@path_option("--export-golden", "FILE", "Only write a golden file; needs no engines.")
@_flag("--compare", "Only compare the --golden --json results of several devices.")
@_flag("--tolerance", "Only measure how many flipped bits --images tolerate, into BUNDLE.")
@_flag("--layers", "Only compare intermediate tensors, on 4 images by default.")
@path_option("--reduce", "DIR", "Like --layers, and write the smallest failing graph to DIR.")
@_flag("--random-weights", "With --reduce: use random weights, to share the graph.")
@click.option(
    "--rebuild", type=click.IntRange(min=2), metavar="N", help="Only compare the engines of N builds."
)
@shard_option("Only run shard I of N, from 0/N, and write a part file to --report DIR.")
@_flag("--merge", "Only join the part files in --report DIR.")
@engines_option
@report_option
@output_options
@click.pass_context
def verify(ctx: click.Context, /, **_: object) -> None:
    """Compare the engines of a target with the checkpoint.

    PyTorch, the ONNX graphs and the engines run on the same images. Without a precision option, the
    engines are those that build-engine built last. BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.
    The exit status is 1 if a gate fails, or devices or layers differ.

    \b
    Examples:
      ccr-deploy verify bundle --images val/ --report report/ --gate max-top1-loss-points=1
      ccr-deploy verify bundle --images val/ --export-golden model.golden    on the workstation
      ccr-deploy verify bundle --golden model.golden                         on the device
      ccr-deploy verify --compare orin-1.json orin-2.json server.json
    """
    options = VerifyOptions(**ctx.params)
    if options.gates == (LIST_GATES,):
        print_gates()
    elif not chosen_mode(ctx, MODES, VERIFY).run(options):
        ctx.exit(GATE_FAILED)
