"""``ccr-deploy calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource
from msgspec.structs import replace

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    echo_json,
    echo_line,
    graph_lines,
    open_bundle,
    output_options,
    path_option,
    print_lines,
    stdout_console,
)
from ccr_deploy.core.records import to_builtins
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS
from ccr_deploy.quantization.recipe import METHODS, CalibrationRecipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.workflow.calibrate import Calibration

SHOWN_UNREADABLE = 5
CHECK_FAILED = 1


@click.command(short_help="Add INT8 graphs to a bundle and measure their accuracy.")
@bundle_argument
@path_option("--images", "DIR", "Calibration images.")
@path_option(
    "--held-out",
    "DIR",
    "Images to measure accuracy on.  [default: the images of --images not used for calibration]",
)
@path_option("--recipe", "FILE", "Read settings from a calibration recipe, a TOML file.")
@click.option(
    "--samples", type=click.IntRange(1), metavar="N", help="Number of calibration images.  [default: 256]"
)
@click.option(
    "--held-out-samples",
    type=click.IntRange(1),
    metavar="N",
    help="Number of images to measure accuracy on.  [default: 500]",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="How to compute activation ranges.  [default: percentile]",
)
@click.option(
    "--percentile",
    type=click.FloatRange(50, 100, min_open=True),
    metavar="P",
    help="Percentile of absolute values to cover.  [default: 99.99]",
)
@click.option(
    "--keep-high-precision",
    metavar="LIST|auto",
    help="Layers to leave unquantized, separated by commas; '' for none; auto: by sensitivity.  "
    f"[default: {','.join(HIGH_PRECISION_LAYERS)}]",
)
@click.option("--sensitivity", is_flag=True, help="Measure the effect of quantizing each layer alone.")
@path_option("--table", "FILE", "Use a calibration table instead of images.")
@path_option("--save-table", "FILE", "Also write the calibration table to FILE.")
@path_option("--compare", "A B", "Only print the differences between two calibration tables.", nargs=2)
@path_option("--check", "DIR", "Only check whether the ranges fit the images in DIR, such as production's.")
@output_options
@click.pass_context
def calibrate(
    ctx: click.Context,
    bundle: Path,
    images: Path | None,
    held_out: Path | None,
    recipe: Path | None,
    samples: int | None,
    held_out_samples: int | None,
    method: Literal["minmax", "entropy", "percentile"] | None,
    percentile: float | None,
    keep_high_precision: str | None,
    sensitivity: bool,
    table: Path | None,
    save_table: Path | None,
    compare: tuple[Path, Path] | None,
    check: Path | None,
    as_json: bool,
) -> None:
    """Calibrate a bundle on images: add INT8 graphs to it and measure the accuracy of every precision.

    The activation ranges are saved as a calibration table, a JSON file that can be reviewed, committed and
    reused with --table. BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Examples:
      ccr-deploy calibrate bundle --images train/ --held-out val/ --save-table ranges.json
      ccr-deploy calibrate bundle --table ranges.json
      ccr-deploy calibrate --compare ranges.json other.json
      ccr-deploy calibrate bundle --check production/
    """
    if compare:
        _print_comparison(*compare, as_json=as_json)
        return
    if check:
        if not _check(ctx, bundle, check, samples or CalibrationRecipe().samples, as_json=as_json):
            ctx.exit(CHECK_FAILED)
        return
    changes = {
        "samples": samples,
        "held_out_samples": held_out_samples,
        "method": method,
        "percentile": percentile,
        "keep_high_precision": _layers(keep_high_precision),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    needs_images = (images, sensitivity, samples, method, percentile, keep_high_precision == "auto")
    if table and any(needs_images):
        raise click.UsageError(
            "--table already contains the ranges: remove --images, --samples, --method, --percentile, "
            "--sensitivity and --keep-high-precision auto"
        )
    if not table and not images:
        raise click.UsageError(
            f"no images given: run ccr-deploy calibrate {bundle} --images DIR, or --table FILE"
        )
    from ccr_deploy.core.atomic import write_atomically, writing
    from ccr_deploy.errors import WrongUsageError
    from ccr_deploy.quantization.recipe import read_recipe
    from ccr_deploy.quantization.table import read_table
    from ccr_deploy.workflow.calibrate import calibrate_bundle, calibrate_from_table

    settings = replace(read_recipe(recipe) if recipe else CalibrationRecipe(), **given)
    progress = TerminalProgress()
    if table:
        result = calibrate_from_table(
            open_bundle(bundle), read_table(table), table, settings, held_out=held_out, progress=progress
        )
    else:
        assert images
        result = calibrate_bundle(
            open_bundle(bundle),
            images,
            settings,
            held_out=held_out,
            with_sensitivity=sensitivity,
            progress=progress,
        )
    _echo_skipped(result.unreadable)
    if save_table:
        with writing(save_table, WrongUsageError):
            write_atomically(save_table, result.table.to_json().encode())
    _print_result(result, as_json)


def _echo_skipped(unreadable: Sequence[str]) -> None:
    for reason in unreadable[:SHOWN_UNREADABLE]:
        echo_line(f"ccr-deploy: skipped: {reason}", err=True)
    if len(unreadable) > SHOWN_UNREADABLE:
        click.echo(f"ccr-deploy: skipped {len(unreadable) - SHOWN_UNREADABLE} more images", err=True)


def _check(ctx: click.Context, bundle: Path, folder: Path, samples: int, *, as_json: bool) -> bool:
    """Print which share of the activations is clipped; return whether the calibration still fits."""
    from ccr_deploy.reporting.precision_tables import clipping_table
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.workflow.calibration_check import check_calibration

    typed = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if typed - {"bundle", "check", "samples", "as_json"}:
        raise click.UsageError("--check only reads the bundle: it accepts --samples and --json alone")
    report, unreadable = check_calibration(open_bundle(bundle), folder, samples, progress=TerminalProgress())
    _echo_skipped(unreadable)
    if as_json:
        tensors = [{**to_builtins(entry), "is_over": entry.is_over} for entry in report.tensors]
        echo_json({**to_builtins(report), "tensors": tensors, "passed": not report.over})
    else:
        print_table(stdout_console(), clipping_table(report))
    if report.over:
        worst = report.over[0]
        echo_line(
            f"ccr-deploy: {len(report.over)} of {len(report.tensors)} tensors clip more than their limit, "
            f"first {worst.stage} {worst.tensor} ({worst.clipped_percent:.2f} %): calibrate again on images "
            f"like these: run ccr-deploy calibrate {bundle} --images DIR",
            err=True,
        )
    return not report.over


def _layers(text: str | None) -> tuple[str, ...] | Literal["auto"] | None:
    if text is None or text == "auto":
        return text  # type: ignore[return-value]  # mypy does not narrow to the literal
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _print_result(result: Calibration, as_json: bool) -> None:
    from ccr_deploy.core.precisions import CALIBRATED
    from ccr_deploy.reporting.precision_tables import accuracy_table, ranges_table, sensitivity_table
    from ccr_deploy.reporting.terminal import print_table
    from ccr_deploy.reporting.tolerance_tables import tolerance_table

    calibration, tolerance = result.bundle.manifest.calibration, result.bundle.manifest.tolerance
    assert calibration is not None
    if as_json:
        echo_json(
            {
                "calibration": calibration,
                "tolerance": tolerance,
                "sensitivity": result.sensitivity,
                "proposed_high_precision": result.proposal,
                "skipped": result.unreadable,
            }
        )
        return
    console = stdout_console()
    print_table(console, ranges_table(result.table))
    if result.sensitivity:
        print_table(console, sensitivity_table(result.sensitivity, result.proposal))
    if calibration.accuracies:
        print_table(console, accuracy_table(calibration))
        if tolerance:
            print_table(console, tolerance_table(tolerance))
    else:
        print_lines("accuracy was not measured: no other images were given: pass some with --held-out DIR")
    print_lines(
        f"layers in high precision: {', '.join(calibration.high_precision) or 'none'}",
        *graph_lines(graph for graph in result.bundle.manifest.graphs if graph.precision in CALIBRATED),
        f"  {result.bundle.path / calibration.table.name}",
    )


def _print_comparison(first: Path, second: Path, *, as_json: bool) -> None:
    from ccr_deploy.quantization.table import compare_tables, read_table
    from ccr_deploy.reporting.precision_tables import comparison_table
    from ccr_deploy.reporting.terminal import print_table

    found = compare_tables(read_table(first), read_table(second))
    if as_json:
        echo_json([{**to_builtins(entry), "ratio": entry.ratio} for entry in found])
    elif found:
        print_table(stdout_console(), comparison_table(found, str(first), str(second)))
    else:
        print_lines(f"{first} and {second} have the same ranges")
