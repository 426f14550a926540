"""The parts of the documents that come from comparisons with peers, one for each machine."""

from __future__ import annotations

from benchmarks.peers.plots import plots
from benchmarks.peers.results import PeerBenchmark
from benchmarks.peers.tables import answers_table, first_table, times_tables
from benchmarks.scaffold import read_result, result_names
from benchmarks.where_time_goes import WhereTimeGoes, kinds_table
from ccr_deploy.reporting.markdown import markdown_table


def results() -> list[PeerBenchmark]:
    """Return the committed comparisons."""
    return [read_result(name, PeerBenchmark) for name in result_names("peers-")]


def peers_pages() -> dict[str, str]:
    """Return the generated parts of the page as Markdown, by their markers' names."""
    found = results()
    where = [read_result(name, WhereTimeGoes) for name in result_names("where-time-goes-")]
    return {
        "peers-first": "\n".join(
            f"{_heading(result)}{markdown_table(first_table(result))}{_images(result)}" for result in found
        ),
        "peers-times": "\n".join(
            _heading(result) + "\n".join(map(markdown_table, times_tables(result))) for result in found
        ),
        "peers-answers": "\n".join(
            f"{_heading(result)}{markdown_table(answers_table(result))}" for result in found
        ),
        "where-time-goes": "\n".join(markdown_table(kinds_table(result)) for result in where),
    }


def peers_plots() -> dict[str, str]:
    """Return the plots of every committed comparison, by the names of their files without suffix."""
    return {_name(result, name): plot for result in results() for name, plot in plots(result).items()}


def _heading(result: PeerBenchmark) -> str:
    return f"**{result.measured_on}**\n\n"


def _images(result: PeerBenchmark) -> str:
    """Return the lines that show a comparison's plots."""
    return "".join(
        f"\n![Times of all candidates: {name}](../images/{_name(result, name)}.svg)\n"
        for name in plots(result)
    )


def _name(result: PeerBenchmark, name: str) -> str:
    return f"peers-{result.slug}-{name}"
