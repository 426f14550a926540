"""``ccr-deploy export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    check_checkpoint_path,
    echo_json,
    echo_line,
    graph_lines,
    output_options,
    path_option,
    print_lines,
    stdout_console,
)
from ccr_deploy.cli.completion import completes, key_map_names, preset_names
from ccr_deploy.core.stages import EXPORTED_SCHEDULES, SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import Schedule
    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.quantization.converters import Converter


class _ExportCommand(click.Command):
    """Explains how to pass the checkpoint if it is given as an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            file = given[0] if len(given) == 1 else "FILE"
            raise click.UsageError(
                f"the option --checkpoint is missing: run ccr-deploy export --checkpoint {file}", ctx
            ) from error


@click.command(cls=_ExportCommand, short_help="Export a checkpoint to a bundle of ONNX graphs.")
@path_option(
    "--checkpoint",
    "FILE",
    "Trained checkpoint; repeatable with --key-map, in its order.",
    required=True,
    multiple=True,
)
@bundle_argument
@click.option(
    "--preset",
    metavar="NAME",
    shell_complete=completes(preset_names),
    help="Model of a state dict without a configuration: ccr-layer1, ccr-layer2, ccr-layer3, demo.",
)
@click.option(
    "--key-map",
    metavar="NAME|FILE",
    shell_complete=completes(key_map_names),
    help="TOML file that renames the tensors of another implementation.",
)
@click.option(
    "--schedule",
    "schedules",
    multiple=True,
    type=click.Choice(SCHEDULES),
    default=EXPORTED_SCHEDULES,
    show_default=True,
    help="Unroll schedule; repeatable.",
)
@click.option(
    "--iterations",
    type=int,
    metavar="T",
    help="Number of iterations; must be a T that was trained.  [default: the checkpoint's]",
)
@click.option(
    "--trained-iterations",
    metavar="T[,T…]",
    help="Every T that the state dict was trained with.  [default: the preset's T]",
)
@click.option(
    "--untrained-iterations",
    is_flag=True,
    help="Allow a T that was not trained. Accuracy drops; the bundle and reports carry a warning.",
)
@click.option("--image-size", type=(int, int), metavar="H W", help="Image size.  [default: the checkpoint's]")
@path_option("--images", "DIR", "Folder to take the sample images from.  [default: synthetic patterns]")
@path_option("--baseline", "FILE", "Checkpoint of the conventional chain, added for comparison.")
@click.option("--no-fp16", is_flag=True, help="Export only FP32 graphs, without Model Optimizer.")
@output_options
def export(
    checkpoint: tuple[Path, ...],
    bundle: Path,
    preset: str | None,
    key_map: str | None,
    schedules: tuple[Schedule, ...],
    iterations: int | None,
    trained_iterations: str | None,
    untrained_iterations: bool,
    image_size: tuple[int, int] | None,
    images: Path | None,
    baseline: Path | None,
    no_fp16: bool,
    as_json: bool,
) -> None:
    """Export a checkpoint to a bundle: ONNX graphs in FP32 and FP16, weights and sample images.

    The T iterations of the encoder are unrolled in the graphs. BUNDLE is the folder to write; an existing
    bundle is replaced. It defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Example:
      ccr-deploy export --checkpoint model.pt --images val/ bundle
    """
    from ccr_deploy.export.exporter import export_bundle, resized
    from ccr_deploy.models.checkpoint import load_checkpoint
    from ccr_deploy.models.iterations import parse_iterations
    from ccr_deploy.reporting.terminal import print_warnings

    for path in (*checkpoint, baseline):
        check_checkpoint_path(path)
    trained = (
        None if trained_iterations is None else parse_iterations(trained_iterations, "--trained-iterations")
    )
    exported = export_bundle(
        resized(_loaded(checkpoint, preset, key_map, trained), iterations, image_size),
        bundle,
        schedules=tuple(dict.fromkeys(schedules)),
        baseline=load_checkpoint(baseline, "ccr-baseline", trained) if baseline else None,
        images=images,
        converters=None if no_fp16 else _converters(),
        untrained_iterations=untrained_iterations,
        progress=TerminalProgress(),
    )
    manifest = exported.manifest
    if as_json:
        echo_json(manifest)
        return
    model = manifest.model
    print_lines(
        f"{bundle}: {model.image_height}x{model.image_width}, T={model.iterations}, "
        f"{manifest.contract.code_bytes} code bytes, contract {manifest.contract_id}"
    )
    print_warnings(stdout_console(), manifest.warnings)
    kind = "synthetic patterns (use --images DIR for real images)" if images is None else f"from {images}"
    print_lines(*graph_lines(manifest.graphs), f"  {len(manifest.samples)} sample images, {kind}")


def _loaded(
    files: tuple[Path, ...], preset: str | None, key_map: str | None, trained: tuple[int, ...] | None
) -> Checkpoint:
    """Return the checkpoint of the command; print which tensors a key map left over."""
    from ccr_deploy.errors import WrongUsageError
    from ccr_deploy.models.checkpoint import load_checkpoint

    if key_map is None:
        if len(files) > 1:
            raise WrongUsageError(f"--checkpoint {files[1]}: a second file needs a key map: give --key-map")
        return load_checkpoint(files[0], preset, trained)
    if preset is not None:
        raise WrongUsageError(
            f"--preset {preset}: the key map gives the names and the tensors the widths: omit --preset"
        )
    from ccr_deploy.models.key_map import left_over_lines
    from ccr_deploy.models.mapped_checkpoint import load_mapped_checkpoint

    loaded = load_mapped_checkpoint(files, key_map, trained)
    for line in left_over_lines(loaded.left_over):
        echo_line(f"ccr-deploy: {line}", err=True)
    return loaded.checkpoint


def _converters() -> Mapping[Precision, Converter]:
    from ccr_deploy.errors import MissingExtraError, WrongUsageError
    from ccr_deploy.quantization import model_optimizer
    from ccr_deploy.quantization.converters import CONVERTERS

    try:
        model_optimizer.check_installed()
    except MissingExtraError as error:
        raise WrongUsageError(f"{error}, or export only FP32 graphs with --no-fp16") from error
    return CONVERTERS
