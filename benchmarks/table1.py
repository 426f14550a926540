"""Measure the paper's Table 1 on this machine, and compare it with the paper.

``python -m benchmarks.table1`` does what ``ccr-deploy benchmark --table1 --target cpu`` does, and writes
``benchmarks/results/table1.json``. On a CPU, the conventional chain takes seconds for an image.
"""

from __future__ import annotations

import click

from benchmarks.scaffold import publish, rounds_option
from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.reporting.table import Table, number
from ccr_deploy.reporting.table1_tables import table1_tables
from ccr_deploy.workflow.table1 import ROUNDS, measure_table1


def paper_table() -> Table:
    """Return the paper's Table 1, as it is printed."""
    return Table.of(
        "The paper's Table 1",
        PAPER_TABLE_1.values(),
        [
            ("preset", lambda row: row.model),
            ("parameters", lambda row: f"{row.parameters:,}"),
            ("time of an image", lambda row: number(row.time_ms, 1, " ms")),
            ("less time", lambda row: number(row.reduction_percent, 0, " %")),
            ("ImageNet-100 top-1", lambda row: number(row.top1_percent, 2, " %")),
        ],
    )


@click.command()
@rounds_option(ROUNDS, "Number of rounds; each round times every candidate once.")
def main(rounds: int) -> None:
    """Measure all models and write the result beside this script."""
    found = measure_table1("cpu", rounds=rounds, progress=TerminalProgress())
    publish("table1", found, *table1_tables(found))


if __name__ == "__main__":
    main()
