"""``ccr-deploy build-engine``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ccr_deploy.cli.common import (
    TerminalProgress,
    bundle_argument,
    chosen_target,
    engines_option,
    json_option,
    stdout_console,
    target_option,
    verbose_option,
)


@click.command("build-engine")
@bundle_argument
@target_option
@click.option(
    "--stage",
    "chosen_stages",
    multiple=True,
    type=click.Choice(["encoder", "classifier", "baseline"]),
    help="Build this stage alone; repeat it for several.  [default: all that the bundle has]",
)
@engines_option
@click.option("--no-cache", is_flag=True, help="Build again what is already in the engine store.")
@json_option
@verbose_option
def build_engine(
    bundle: Path,
    target: str | None,
    chosen_stages: tuple[str, ...],
    engines: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Build a bundle's engines for a target, into the engine store.

    An engine that is there already, for the same graph, backend, device and target, is not built again.

    \b
    Example:
      ccr-deploy build-engine bundle --target cpu
    """
    from ccr_deploy.bundle import Bundle
    from ccr_deploy.engine_factory import EngineFactory
    from ccr_deploy.engine_store import EngineStore
    from ccr_deploy.workflow import bundle_stages

    console = stdout_console()
    name = chosen_target(target, None if as_json else console)
    factory = EngineFactory(Bundle.open(bundle), name, EngineStore.default(engines))
    stages = [stage for stage in bundle_stages(factory.bundle) if not chosen_stages or stage in chosen_stages]
    if missing := set(chosen_stages) - set(stages):
        raise click.UsageError(f"{bundle} has no {', '.join(sorted(missing))}")
    with TerminalProgress().task("building", len(stages)) as advance:
        built = []
        for stage in stages:
            built.append(factory.build(stage, rebuild=no_cache))
            advance(1)
    if as_json:
        results = [
            {"path": str(engine.path), "built_now": new, **engine.sidecar.model_dump(mode="json")}
            for engine, new in built
        ]
        click.echo(json.dumps(results, indent=2))
        return
    for engine, new in built:
        key, sidecar = engine.sidecar.key, engine.sidecar
        how = f"built in {sidecar.build_seconds:.2f} s" if new else "unchanged, not built again"
        what = " ".join(filter(None, (key.stage, key.precision, key.schedule)))
        console.print(
            f"{what}: {key.backend} {key.backend_version}, {sidecar.engine_bytes / 1e6:.2f} MB, {how}",
            markup=False,
        )
        console.print(f"  {engine.path}", markup=False, soft_wrap=True)
