"""``ccr-deploy build-engine``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    chosen_target,
    engines_option,
    json_option,
    precision_options,
    stdout_console,
    target_option,
    verbose_option,
)
from ccr_deploy.core.records import to_builtins
from ccr_deploy.core.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.workflow.build import BuiltEngine


@click.command("build-engine")
@bundle_argument
@target_option
@click.option(
    "--stage",
    "chosen_stages",
    multiple=True,
    type=click.Choice(STAGES),
    help="Build this stage alone; repeat it for several.  [default: all that the bundle has]",
)
@precision_options
@click.option(
    "--auto",
    "precision",
    flag_value="auto",
    help="Each stage's fastest engine within the accuracy budget.",
)
@click.option(
    "--accuracy-budget",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Top-1 accuracy that a lower precision may cost.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures to calibrate on first, where the bundle lacks quantized graphs.",
)
@engines_option
@click.option("--no-cache", is_flag=True, help="Build again what is already in the engine store.")
@click.option(
    "--no-timing",
    is_flag=True,
    help="Time nothing, as for the start of a container; not with --auto, which chooses by timing.",
)
@json_option
@verbose_option
def build_engine(
    bundle: Path,
    target: str | None,
    chosen_stages: tuple[str, ...],
    precision: EnginePrecision | Literal["auto"] | None,
    accuracy_budget: float,
    images: Path | None,
    engines: Path | None,
    no_cache: bool,
    no_timing: bool,
    as_json: bool,
) -> None:
    """Build a bundle's engines for a target, into the engine store.

    An engine that is there already, for the same graph, backend, device and target, is not built again.
    Where this machine can run them, engines of a lower precision are timed against FP32, and quantized
    ones on a GPU against FP16; the bundle's record of what they cost is shown. TensorRT builds on the GPU
    that it builds for; TensorRT-RTX builds on any machine. What was built last for a bundle and target is
    what verify, benchmark and classify use.

    \b
    Examples:
      ccr-deploy build-engine bundle --target cpu-openvino --int8
      ccr-deploy build-engine bundle --target rtx
      ccr-deploy build-engine bundle --target cpu-openvino --auto --accuracy-budget 0.5
    """
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.workflow.build import build_engines
    from ccr_deploy.workflow.engines import bundle_stages

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    opened = Bundle.open(bundle)
    stages = [stage for stage in bundle_stages(opened) if not chosen_stages or stage in chosen_stages]
    if missing := set(chosen_stages) - set(stages):
        raise click.UsageError(f"{bundle} has no {', '.join(sorted(missing))}")
    built = build_engines(
        opened,
        name,
        EngineStore.default(engines),
        stages,
        precision=precision,
        images=images,
        accuracy_budget_points=accuracy_budget,
        rebuild=no_cache,
        timing=not no_timing,
        progress=TerminalProgress(),
    )
    if as_json:
        results = [
            {
                "path": str(entry.engine.path),
                "built_now": entry.built_now,
                **to_builtins(entry.engine.sidecar),
            }
            for entry in built
        ]
        click.echo(json.dumps(results, indent=2))
        return
    _print_engines(console, built)


def _print_engines(console: Console, built: Sequence[BuiltEngine]) -> None:
    from ccr_deploy.reporting.engine_lines import build_line
    from ccr_deploy.reporting.precision_tables import cost_lines, refused_lines, speed_line

    for entry in built:
        key, sidecar = entry.engine.sidecar.key, entry.engine.sidecar
        now = f"built in {build_line(sidecar.build_seconds, sidecar.build)}"
        how = now if entry.built_now else "unchanged, not built again"
        what = " ".join(filter(None, (key.stage, key.precision, key.schedule)))
        library = f"{key.backend} {key.backend_version}, {sidecar.engine_bytes / 1e6:.2f} MB"
        console.print(f"{what}: {library}, {how}", markup=False, soft_wrap=True)
        console.print(f"  {entry.engine.path}", markup=False, soft_wrap=True)
        lines = [sidecar.build.int8_weights] if sidecar.build.int8_weights else []
        if entry.verdict:
            lines += [speed_line(entry.verdict), *refused_lines(entry.verdict)]
        for line in lines:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        if key.weight_bits == 7:
            line = (
                "what the bundle records of INT8 is of 8-bit weights: ccr-deploy verify measures this engine"
            )
            console.print(f"  {line}", markup=False, soft_wrap=True)
    for line in cost_lines([entry.verdict for entry in built if entry.verdict]):
        console.print(line, markup=False)
