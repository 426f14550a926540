"""Compare encoder, classifier and whole chain of ``ccr-layer1`` (224x224, T=8, batch 1) with PyTorch eager.

``python -m benchmarks.schedules`` exports untrained weights (speed does not depend on them) in all
three unroll schedules, times them as `ccr-deploy benchmark` does, and writes
``benchmarks/results/cpu-ccr-layer1.json``. ``--baseline`` adds the conventional chain, which takes
several seconds per image.
"""

from __future__ import annotations

import click
from msgspec import structs

from benchmarks.scaffold import preset_option, publish, rounds_option, temporary_folder, untrained_bundle
from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core.stages import SCHEDULES
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.terminal import print_warnings
from ccr_deploy.workflow.benchmark import benchmark_bundle


@click.command()
@preset_option
@rounds_option(20, "Number of rounds; each round times every candidate once.")
@click.option("--baseline", is_flag=True, help="Time the conventional chain too.")
def main(name: str, rounds: int, baseline: bool) -> None:
    """Measure all three unroll schedules and write the result beside this script."""
    with temporary_folder() as folder:
        bundle = untrained_bundle(name, folder, SCHEDULES, "ccr-baseline" if baseline else None)
        store = EngineStore(folder / "engines")
        report = benchmark_bundle(bundle, "cpu", store, rounds=rounds, progress=TerminalProgress())
    report = structs.replace(report, bundle=f"{name}, untrained")
    print_warnings(stdout_console(), report.warnings)
    publish(f"cpu-{name}{'-baseline' if baseline else ''}", report, *benchmark_tables(report))


if __name__ == "__main__":
    main()
