"""The report as one self-contained HTML file: tables, plots and sample images."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from ccr_deploy.errors import MissingExtraError

try:
    import jinja2
except ImportError:
    raise MissingExtraError("jinja2", "report", "an HTML report") from None

from ccr_deploy.core.printable import printable
from ccr_deploy.reporting.plots import accuracy_plot, speedup_plot
from ccr_deploy.reporting.tables import benchmark_tables, summary_table, unreliable_line
from ccr_deploy.reporting.verification_tables import verification_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.reporting.table import Table
    from ccr_deploy.verification.results import VerificationReport


def html(
    title: str,
    verification: VerificationReport | None,
    benchmark: BenchmarkReport | None,
    warnings: Sequence[str],
) -> str:
    """Return the report on the results; with both results it starts with their summary.

    Args:
        title: heading of the report.
        verification: result of `verify`, or None.
        benchmark: result of `benchmark`, or None.
        warnings: lines below the heading.
    """
    sections: list[tuple[Table, str]] = []
    if verification and benchmark:
        sections.append((summary_table(verification, benchmark), speedup_plot(benchmark)))
    if verification:
        plots = {"Accuracy": accuracy_plot(verification)} if verification.accuracies else {}
        sections.extend((table, plots.get(table.title, "")) for table in verification_tables(verification))
    if benchmark:
        plot = "" if verification else speedup_plot(benchmark)
        sections.extend((table, plot) for table in benchmark_tables(benchmark))
    template = resources.files("ccr_deploy.reporting").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # a plot is Markup
    )
    return environment.from_string(template).render(
        title=title,
        sections=sections,
        verification=verification,
        warnings=warnings,
        unreliable=unreliable_line(benchmark.unreliable_reasons) if benchmark else "",
    )
