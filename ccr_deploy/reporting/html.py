"""The report as one self-contained HTML file: verdict, plots, tables and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import MissingExtraError

try:
    import jinja2
except ImportError:
    raise MissingExtraError("jinja2", "report", "an HTML report") from None

from ccr_deploy.core.printable import printable
from ccr_deploy.reporting.sections import sections
from ccr_deploy.reporting.tables import unreliable_line
from ccr_deploy.reporting.verdict import Verdict, key_figures

if TYPE_CHECKING:
    from ccr_deploy.reporting.results import Results


def html(title: str, results: Results) -> str:
    """Return the report on the results as a page with a heading."""
    verification, benchmark = results.verification, results.benchmark
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ccr_deploy", "reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # a plot is Markup
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        verification=verification,
        verdict=Verdict.of(verification) if verification else None,
        figures=key_figures(verification, benchmark),
        unreliable=unreliable_line(benchmark.unreliable_reasons) if benchmark else "",
        warnings=results.warnings,
        sections=sections(results),
    )
