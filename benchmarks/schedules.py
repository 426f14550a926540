"""Encoder, classifier and whole chain of ``ccr-layer1`` at 224x224, T=8, batch 1, against PyTorch eager.

``python -m benchmarks.schedules`` exports untrained weights (speed does not depend on them) in all
three unroll schedules, times them as `ccr-deploy benchmark` does, and writes
``benchmarks/results/cpu-ccr-layer1.json``. ``--baseline`` adds the conventional chain, which takes
several seconds an image.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click

from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.terminal import print_table, print_warnings
from ccr_deploy.workflow.benchmark import benchmark_bundle
from ccr_deploy.workflow.report_folder import to_json

RESULTS = Path(__file__).parent / "results"


@click.command()
@click.option("--preset", "name", default="ccr-layer1", show_default=True, help="Which model.")
@click.option("--rounds", default=20, show_default=True, help="Turns of each competitor.")
@click.option("--baseline", is_flag=True, help="Time the conventional chain too.")
def main(name: str, rounds: int, baseline: bool) -> None:
    """Measure all three unroll schedules and write the result beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(
            untrained_checkpoint(preset(name)),
            Path(folder) / "bundle",
            schedules=("iteration-major", "layer-major", "plain"),
            baseline=untrained_checkpoint(preset("ccr-baseline")) if baseline else None,
        )
        store = EngineStore(Path(folder) / "engines")
        report = benchmark_bundle(bundle, "cpu", store, rounds=rounds, progress=TerminalProgress())
    suffix = "-baseline" if baseline else ""
    RESULTS.mkdir(exist_ok=True)
    report = replace(report, bundle=f"{name}, untrained")
    write_atomically(RESULTS / f"cpu-{name}{suffix}.json", to_json(report).encode())
    console = stdout_console()
    print_warnings(console, report.warnings)
    for table in benchmark_tables(report):
        print_table(console, table)


if __name__ == "__main__":
    main()
