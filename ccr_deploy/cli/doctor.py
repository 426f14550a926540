"""``ccr-deploy doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ccr_deploy.cli.common import echo_json, output_options, print_lines

if TYPE_CHECKING:
    from ccr_deploy.core.gpu_driver import GpuExtras
    from ccr_deploy.workflow.doctor import TargetFit


@click.command(short_help="Show which targets this machine can build and run.")
@output_options
def doctor(as_json: bool) -> None:
    """Show which targets this machine can build and run, with the reason for each that it cannot.

    \b
    Example:
      ccr-deploy doctor
    """
    from ccr_deploy.workflow.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        echo_json(diagnosis)
        return
    gpu = f"{diagnosis.gpu}, driver {diagnosis.gpu_driver}" if diagnosis.gpu else diagnosis.gpu_obstacle
    packages = (f"{name} {version or 'not installed'}" for name, version in diagnosis.packages.items())
    print_lines(
        f"ccr-deploy {diagnosis.ccr_deploy}, Python {diagnosis.python}, {diagnosis.operating_system}",
        f"CPU: {diagnosis.processor}, {diagnosis.usable_cores} cores",
        f"OpenVINO: {diagnosis.int8_weights}",
        f"GPU: {gpu}",
        *extras_lines(diagnosis.gpu_extras),
        f"packages: {', '.join(packages)}",
        "",
        *(_line(fit) for fit in diagnosis.targets),
        "",
        f"default target: {diagnosis.default_target}",
    )


def extras_lines(extras: GpuExtras | None) -> tuple[str, ...]:
    """Return a line about the extras that the GPU driver supports; none if there is no driver."""
    if extras is None:
        return ()
    return (f"extras for this GPU: {', '.join(extras.names) or 'none'} ({extras.reason})",)


def _line(fit: TargetFit) -> str:
    builds = "builds" if fit.build_obstacle is None else "-"
    runs = "runs" if fit.run_obstacle is None else "-"
    why_not = dict.fromkeys(filter(None, (fit.build_obstacle, fit.run_obstacle)))
    return f"{fit.target:<16} {builds:<6} {runs:<4}  {'; '.join(why_not) or fit.description}"
