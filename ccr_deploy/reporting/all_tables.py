"""All tables of a report, for Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.evidence import joined_table
from ccr_deploy.reporting.pareto import pareto, pareto_table
from ccr_deploy.reporting.scenario_tables import scenario_tables, soak_tables
from ccr_deploy.reporting.table1_tables import table1_tables
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.verification_tables import verification_tables

if TYPE_CHECKING:
    from ccr_deploy.reporting.results import Results
    from ccr_deploy.reporting.table import Table


def all_tables(results: Results) -> list[Table]:
    """Return the tables of all results, the summary first."""
    verification, benchmark = results.verification, results.benchmark
    found: list[Table] = []
    if verification and benchmark:
        found.append(joined_table(verification, benchmark))
        if trade_off := pareto(verification, benchmark):
            found.append(pareto_table(trade_off))
    if verification:
        found += verification_tables(verification)
    if benchmark:
        found += benchmark_tables(benchmark)
    for scenario in results.scenarios:
        found += scenario_tables(scenario)
    if results.soak:
        found += soak_tables(results.soak)
    if results.table1:
        found += table1_tables(results.table1)
    return found
