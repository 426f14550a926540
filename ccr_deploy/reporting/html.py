"""Reports as one self-contained HTML file: verdict, plots, tables and images."""

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
    from collections.abc import Sequence

    from ccr_deploy.reporting.results import Results
    from ccr_deploy.reporting.section import Section
    from ccr_deploy.reporting.verdict import Figure
    from ccr_deploy.verification.results import VerificationReport


def html(title: str, results: Results) -> str:
    """Return the report on the results as a page with a heading."""
    verification, benchmark = results.verification, results.benchmark
    return page(
        title,
        sections(results),
        figures=key_figures(verification, benchmark),
        warnings=results.warnings,
        unreliable=unreliable_line(benchmark.unreliable_reasons) if benchmark else "",
        verification=verification,
    )


def page(
    title: str,
    content: Sequence[Section],
    *,
    figures: Sequence[Figure] = (),
    warnings: Sequence[str] = (),
    unreliable: str = "",
    verification: VerificationReport | None = None,
) -> str:
    """Return a page.

    Args:
        title: its heading.
        content: its sections.
        figures: the figures that matter most, above the sections.
        warnings: lines above the figures.
        unreliable: why the speeds are unreliable; "" if they are not.
        verification: result of `verify`, whose verdict comes first; None if there is none.
    """
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
        figures=figures,
        unreliable=unreliable,
        warnings=warnings,
        sections=content,
    )
