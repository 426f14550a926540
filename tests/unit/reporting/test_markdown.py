"""Markdown that a renderer reads as the table it is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccr_deploy.reporting.markdown import markdown
from ccr_deploy.reporting.table import Table

TABLE = Table(title="Speed", columns=("what", "p50 ms"), rows=(("a|b", "1.00"), ("", "2.00")), note="A note.")


def cells(line: str) -> list[str]:
    """The cells of a row, split as GitHub does: at pipes that no backslash escapes."""
    parts = re.split(r"(?<!\\)\|", line)
    assert parts[0] == parts[-1] == ""
    return [part.strip().replace("\\|", "|") for part in parts[1:-1]]


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_document_reads_as_a_golden_text():
    assert markdown("Report", [TABLE]) == (
        "# Report\n"
        "\n"
        "## Speed\n"
        "\n"
        "| what | p50 ms |\n"
        "| :--- | ---: |\n"
        "| a\\|b | 1.00 |\n"
        "|  | 2.00 |\n"
        "\n"
        "A note.\n"
    )


def test_warnings_stand_above_the_first_section():
    text = markdown("Report", [TABLE], ["T=8 was not trained.", "Nor was the baseline."])
    assert text.startswith(
        "# Report\n\n**Warning:** T=8 was not trained.\n\n**Warning:** Nor was the baseline.\n\n## Speed\n"
    )


def test_a_pipe_within_a_cell_does_not_split_it():
    assert cells(table_lines(markdown("Report", [TABLE]))[2]) == ["a|b", "1.00"]


def test_a_pipe_within_a_column_s_name_does_not_split_it():
    table = Table(title="t", columns=("a|b", "c"), rows=(("1", "2"),))
    assert cells(table_lines(markdown("Report", [table]))[0]) == ["a|b", "c"]


@given(
    st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.tuples(*[st.text("ab| –%:", max_size=6).map(str.strip)] * columns), min_size=2, max_size=5
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_every_line_of_a_table_has_the_same_number_of_cells(rows):
    table = Table(title="t", columns=rows[0], rows=tuple(rows[1:]))
    lines = [cells(line) for line in table_lines(markdown("Report", [table]))]
    assert [tuple(line) for line in (lines[0], *lines[2:])] == rows
    assert {len(line) for line in lines} == {len(rows[0])}


@pytest.mark.parametrize(
    ("rows", "alignments"),
    [
        ([], [":---", "---:", "---:"]),
        ([("1", "1.00", "3.6 – 3.8")], [":---", "---:", "---:"]),
        ([("encoder", "FP32", "1.00"), ("chain", "", "")], [":---", ":---", "---:"]),
        ([("encoder", "–", "8 of 8 payloads equal"), ("chain", "-", "cosine 1.0")], [":---", "---:", ":---"]),
    ],
)
def test_text_columns_are_aligned_left_and_numbers_right(rows, alignments):
    table = Table(title="t", columns=("a", "b", "c"), rows=tuple(rows))
    assert cells(table_lines(markdown("Report", [table]))[1]) == alignments


def test_an_empty_line_stands_before_and_after_every_table():
    lines = markdown("Report", [TABLE, TABLE]).splitlines()
    first = [index for index, line in enumerate(lines) if line.startswith("| what")]
    assert [lines[index - 1] for index in first] == ["", ""]
    last = [index for index, line in enumerate(lines) if line.startswith("|  |")]
    assert [lines[index + 1] for index in last] == ["", ""]


def test_a_table_without_a_note_has_none():
    table = Table(title="t", columns=("a",), rows=(("1",),))
    assert markdown("Report", [table]) == "# Report\n\n## t\n\n| a |\n| :--- |\n| 1 |\n"


def test_every_table_has_its_heading():
    text = markdown("Report", [TABLE, Table(title="Gates", columns=("a",), rows=())])
    assert re.findall(r"^#+ .*$", text, flags=re.MULTILINE) == ["# Report", "## Speed", "## Gates"]


HOSTILE = "<script>alert(1)</script> &amp; ![x](http://x) \x1b[31m\n## Fake"


@pytest.mark.parametrize("place", ["title", "column", "cell", "note", "warning"])
def test_no_text_becomes_html_a_link_an_escape_or_a_line(place):
    text = {
        name: HOSTILE if name == place else "plain" for name in ("title", "column", "cell", "note", "warning")
    }
    table = Table(text["title"], (text["column"],), ((text["cell"],),), text["note"])
    document = markdown("Report", [table], [text["warning"]])
    assert "<" not in document
    assert "](" not in document
    assert "\x1b" not in document
    assert "\n## Fake" not in document
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;amp; ![x]\\(http://x) \\x1b[31m\\n## Fake" in document
