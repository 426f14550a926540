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


@click.command("build-engine", short_help="Build the engines of a bundle for a target.")
@bundle_argument
@target_option
@click.option(
    "--stage",
    "chosen_stages",
    multiple=True,
    type=click.Choice(STAGES),
    help="Stage to build; repeatable.  [default: all stages of the bundle]",
)
@precision_options
@click.option(
    "--auto",
    "precision",
    flag_value="auto",
    help="For each stage, the fastest precision within the accuracy budget.",
)
@click.option(
    "--accuracy-budget",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Percentage points of top-1 accuracy that a lower precision may lose.",
)
@path_option("--images", "DIR", "Calibrate on these images first if the bundle has no INT8 graphs.")
@engines_option
@click.option("--no-cache", is_flag=True, help="Build again even if the engine store has the engine.")
@click.option(
    "--no-timing",
    is_flag=True,
    help="Do not time the engines, for example in a container's entrypoint; not with --auto.",
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
    """Build the engines of a bundle for a target and add them to the engine store.

    An engine is reused if the store has it for the same graph, backend, device and target. If this machine
    can run the engines, lower precisions are timed against FP32 (on a GPU, INT8 against FP16), and the
    accuracy that calibrate recorded for them is printed. TensorRT engines are built on the GPU that runs
    them, TensorRT-RTX engines on any machine. The other commands use the engines that were built last for
    the same bundle and target.

    BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Examples:
      ccr-deploy build-engine bundle --target cpu-openvino --int8
      ccr-deploy build-engine bundle --target rtx
      ccr-deploy build-engine bundle --target cpu-openvino --auto --accuracy-budget 0.5
    """
    from ccr_deploy.workflow.build import build_engines
    from ccr_deploy.workflow.engines import bundle_stages

    read, name, store = opened(bundle, target, engines, as_json=as_json)
    stages_here = bundle_stages(read)
    stages = [stage for stage in stages_here if not chosen_stages or stage in chosen_stages]
    if missing := set(chosen_stages) - set(stages):
        raise click.UsageError(
            f"--stage {sorted(missing)[0]}: {bundle} has no graph of this stage: choose from "
            f"{', '.join(stages_here)}"
        )
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
        print_lines(*_lines(built, is_timing_asked=not no_timing))


def _lines(built: Sequence[BuiltEngine], *, is_timing_asked: bool) -> Iterator[str]:
    from ccr_deploy.reporting.engine_lines import build_line, unverified_line
    from ccr_deploy.reporting.kernel_tables import int8_cost_lines
    from ccr_deploy.reporting.precision_tables import cost_lines, refused_lines, speed_line

    for entry in built:
        key, sidecar = entry.engine.sidecar.key, entry.engine.sidecar
        now = f"built in {build_line(sidecar.build_seconds, sidecar.build)}"
        how = now if entry.built_now else "reused from the engine store"
        what = " ".join(filter(None, (key.stage, key.precision, key.schedule)))
        yield f"{what}: {key.backend} {key.backend_version}, {sidecar.engine_bytes / 1e6:.2f} MB, {how}"
        yield f"  {entry.engine.path}"
        if sidecar.build.int8_weights:
            yield f"  {sidecar.build.int8_weights}"
        if unverified := unverified_line(sidecar):
            yield f"  {unverified}"
        yield from (f"  {line}" for line in int8_cost_lines(sidecar.build))
        if entry.verdict:
            yield f"  {speed_line(entry.verdict, is_timing_asked=is_timing_asked)}"
            yield from (f"  {line}" for line in refused_lines(entry.verdict))
        if key.weight_bits == 7:
            measured = "the INT8 accuracy that the bundle records was measured with 8-bit weights"
            yield f"  {measured}: run ccr-deploy verify to measure this engine"
    yield from cost_lines([entry.verdict for entry in built if entry.verdict])
