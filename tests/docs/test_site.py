"""The site builds without warnings, loads nothing from other servers and names no machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.cli import cli
from tests.docs.fences import DOCUMENTS, ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements that load a resource when a page is viewed, and the attribute that names it."""
EXTERNAL = re.compile(r"^(https?:)?//")


class Loaded(HTMLParser):
    """Collects the resources that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "link" and found.get("rel") in {"canonical", "prev", "next"}:
            return
        if url := found.get(LOADING.get(tag, "")):
            self.urls.append(url)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_every_page_is_built_and_found_by_search(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    for page in (ROOT / "docs").rglob("*.md"):
        built = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / built).exists(), built
        assert str(built) in found, built


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.urls
        assert [url for url in parser.urls if EXTERNAL.match(url)] == [], page
        for url in parser.urls:
            path = url.partition("?")[0].partition("#")[0]
            assert url.startswith("data:") or page.name == "404.html" or (page.parent / path).exists(), url


def test_style_sheets_load_nothing_from_other_servers(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*", text) == [], sheet


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name, command in cli.commands.items():
        assert f"ccr-deploy {name}" in page
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in page, f"{name} {option}"


def test_the_home_page_lists_every_command() -> None:
    home = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        name for row in re.findall(r"^\| \w+ \| (`.*?`) \|", home, re.MULTILINE) for name in row.split(", ")
    }
    assert set(cli.commands) <= {name.strip("`") for name in listed}


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, ROOT / "mkdocs.yml"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_sources_name_no_registry_and_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [name for name in ("index-url", "repo_url", f"{ROOT}/") if name in text] == []
