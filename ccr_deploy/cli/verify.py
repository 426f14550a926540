"""``ccr-deploy verify``."""

from __future__ import annotations

from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    echo_line,
    engines_option,
    opened,
    output_options,
    path_option,
    precision_options,
    report_option,
    show_tables,
    target_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import EnginePrecision

GATE_FAILED = 1


class _VerifyCommand(click.Command):
    """Lists the gates with their limits in its help."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.help = cleandoc(self.help or "").replace("GATES", _gate_lines())
        super().format_help_text(ctx, formatter)


@click.command(cls=_VerifyCommand, short_help="Compare the engines of a target with the checkpoint.")
@bundle_argument
@target_option
@precision_options
@path_option(
    "--images", "DIR", "Folder of images; sub-folders are classes.  [default: the bundle's sample images]"
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME=LIMIT",
    help="Set the limit of a gate; repeatable.",
)
@engines_option
@report_option
@output_options
@click.pass_context
def verify(
    ctx: click.Context,
    bundle: Path,
    target: str | None,
    precision: EnginePrecision | None,
    images: Path | None,
    gates: tuple[str, ...],
    engines: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare the engines of a target with the checkpoint.

    PyTorch, the ONNX graphs and the engines run on the same images. Codes, logits and top-1 classes are
    compared, and accuracies if the images have labels. Without a precision option, the engines are those
    that build-engine built last. BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle. The exit status is
    1 if a gate fails. The gates and their limits:

    \b
    GATES

    \b
    Example:
      ccr-deploy verify bundle --images val/ --report report/ --gate max-top1-loss-points=1
    """
    from ccr_deploy.reporting.tables import verification_tables
    from ccr_deploy.workflow.report_folder import check_report_folder
    from ccr_deploy.workflow.verify import verify_bundle

    if report:
        check_report_folder(report)
    result = verify_bundle(
        *opened(bundle, target, engines, as_json=as_json),
        precision=precision,
        images=images,
        changed_gates=gates,
        progress=TerminalProgress(),
    )
    show_tables(result, verification_tables(result), report, as_json=as_json)
    if not result.passed:
        failed = [f"{gate.level} {gate.gate}" for gate in result.gates if not gate.passed]
        echo_line(
            f"ccr-deploy: {len(failed)} of {len(result.gates)} gates failed: {', '.join(failed)}", err=True
        )
        ctx.exit(GATE_FAILED)


def _gate_lines() -> str:
    """Return the gates with their limits, one line each, in columns."""
    from ccr_deploy.core.precisions import PRECISIONS
    from ccr_deploy.verification.gates import GATES

    rows = [
        ["", *(row.label for row in PRECISIONS.values()), ""],
        *([gate.name, *map(gate.limit_text, PRECISIONS), gate.help] for gate in GATES),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(f"  {line}" for line in lines)
