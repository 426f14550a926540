"""The README: short, complete, and with a legible diagram."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.scaffold import read_result
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.cli import cli
from tests.support.documents import make_targets, missing_links

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_readme_fits_two_screens() -> None:
    lines = [line for line in README.splitlines() if line.strip() and not line.startswith("<!--")]
    assert sum(1 + len(line) // 130 for line in lines) <= 90


def test_the_readme_lists_every_command_in_the_order_of_the_help() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \| [A-Z]", README, flags=re.MULTILINE) == list(cli.commands)


def test_the_demo_table_names_the_processor_that_it_was_measured_on() -> None:
    table = README.partition("<!-- demo -->")[2].partition("<!-- /demo -->")[0]
    assert read_result("demo-benchmark", BenchmarkReport).machine.processor in table


def test_every_link_leads_to_a_file() -> None:
    assert missing_links(ROOT / "README.md") == []


def test_every_make_target_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "docs"} <= named <= make_targets()


def test_the_data_flow_diagram_names_commands_that_exist() -> None:
    diagram = ET.parse(ROOT / "docs" / "images" / "data-flow.svg")  # noqa: S314 -- our own file
    named = {
        name
        for text in diagram.iter(f"{SVG}text")
        if text.get("class") == "command" and text.text
        for name in text.text.split(", ")
    }
    assert {"export", "calibrate", "build-engine", "encode", "classify"} <= named <= set(cli.commands)


_LOADED = r'<script|<image|@import|url\((?!#)|href=(?!"#)|https?://(?!www\.w3\.org/(?:2000/svg|1999/xlink))'


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_diagram_is_self_contained_and_has_a_dark_scheme(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(_LOADED, text)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_diagram_is_legible_at_400_pixels(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    width = float(ET.fromstring(text).attrib["viewBox"].split()[2])  # noqa: S314 -- our own file
    sizes = [float(size) for size in re.findall(r"font-size: ?([\d.]+)px", text)]
    assert min(sizes) * 400 / width > 10
