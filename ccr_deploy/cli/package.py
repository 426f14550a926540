"""``ccr-deploy package``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import (
    bundle_argument,
    chosen_target,
    engines_option,
    json_option,
    stdout_console,
    target_option,
    verbose_option,
)

if TYPE_CHECKING:
    from ccr_deploy.packaging.triton import PackagedRepository


@click.command()
@bundle_argument
@click.option(
    "--format",
    "_format",
    type=click.Choice(["triton"]),
    required=True,
    expose_value=False,
    help="What to write: a Triton model repository.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for it; a repository that is there gets a new version.",
)
@target_option
@engines_option
@json_option
@verbose_option
def package(bundle: Path, output: Path, target: str | None, engines: Path | None, as_json: bool) -> None:
    """Write a bundle and its engines as what a production server loads.

    For a target of ONNX Runtime the bundle's graphs are packaged, for one of TensorRT the plans in the
    engine store: one for each compute capability that they were built on. The precision is what was last
    built for bundle and target.

    \b
    Example:
      ccr-deploy package bundle --format triton --output repository
    """
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.engine_store import EngineStore
    from ccr_deploy.packaging.triton import package_triton

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    packaged = package_triton(Bundle.open(bundle), name, EngineStore.default(engines), output)
    if as_json:
        click.echo(json.dumps(_as_json(packaged), indent=2))
        return
    for line in _lines(packaged):
        console.print(line, markup=False, soft_wrap=True)


def _as_json(packaged: PackagedRepository) -> dict[str, object]:
    return {
        "path": str(packaged.path),
        "models": packaged.models,
        **packaged.borders.model_dump(mode="json"),
        **packaged.version.model_dump(mode="json"),
    }


def _lines(packaged: PackagedRepository) -> list[str]:
    version = packaged.version
    engines = ", ".join(f"{stage} {precision}" for stage, precision in version.precisions.items())
    lines = [
        f"{packaged.path}: version {version.version} of {', '.join(packaged.models)}",
        f"engines: {engines}, for {packaged.borders.backend}; contract {version.contract_id}",
    ]
    if version.library_version:
        devices = ", ".join(version.compute_capabilities) or "8.0 or later"
        lines.append(f"the server needs TensorRT {version.library_version}, compute capability {devices}")
    return lines
