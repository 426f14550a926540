"""``ccr-deploy build-engine``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    echo_json,
    engines_option,
    opened,
    output_options,
    path_option,
    precision_options,
    print_lines,
    target_option,
)
from ccr_deploy.core.records import to_builtins
from ccr_deploy.core.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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
@path_option("--images", "DIR", "Images to calibrate on first, where the bundle lacks quantized graphs.")
@engines_option
@click.option("--no-cache", is_flag=True, help="Build again what is already in the engine store.")
@click.option(
    "--no-timing",
    is_flag=True,
    help="Time nothing, as for the start of a container; not with --auto, which chooses by timing.",
)
@output_options
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
    from ccr_deploy.workflow.build import build_engines
    from ccr_deploy.workflow.engines import bundle_stages

    read, name, store = opened(bundle, target, engines, as_json=as_json)
    stages = [stage for stage in bundle_stages(read) if not chosen_stages or stage in chosen_stages]
    if missing := set(chosen_stages) - set(stages):
        raise click.UsageError(f"{bundle} has no {', '.join(sorted(missing))}")
    built = build_engines(
        read,
        name,
        store,
        stages,
        precision=precision,
        images=images,
        accuracy_budget_points=accuracy_budget,
        rebuild=no_cache,
        timing=not no_timing,
        progress=TerminalProgress(),
    )
    if as_json:
        echo_json(
            [
                {
                    "path": str(entry.engine.path),
                    "built_now": entry.built_now,
                    **to_builtins(entry.engine.sidecar),
                }
                for entry in built
            ]
        )
    else:
        print_lines(*_lines(built))


def _lines(built: Sequence[BuiltEngine]) -> Iterator[str]:
    from ccr_deploy.reporting.engine_lines import build_line
    from ccr_deploy.reporting.precision_tables import cost_lines, refused_lines, speed_line

    for entry in built:
        key, sidecar = entry.engine.sidecar.key, entry.engine.sidecar
        now = f"built in {build_line(sidecar.build_seconds, sidecar.build)}"
        how = now if entry.built_now else "unchanged, not built again"
        what = " ".join(filter(None, (key.stage, key.precision, key.schedule)))
        yield f"{what}: {key.backend} {key.backend_version}, {sidecar.engine_bytes / 1e6:.2f} MB, {how}"
        yield f"  {entry.engine.path}"
        if sidecar.build.int8_weights:
            yield f"  {sidecar.build.int8_weights}"
        if entry.verdict:
            yield from (f"  {line}" for line in (speed_line(entry.verdict), *refused_lines(entry.verdict)))
        if key.weight_bits == 7:
            what_is_known = "what the bundle records of INT8 is of 8-bit weights"
            yield f"  {what_is_known}: ccr-deploy verify measures this engine"
    yield from cost_lines([entry.verdict for entry in built if entry.verdict])
