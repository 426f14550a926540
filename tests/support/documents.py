"""Properties of documents, for tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def missing_links(document: Path) -> list[str]:
    """Return the files and headings that a document links to and that do not exist."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = []
    for link in re.findall(r'\]\(([^):]+)\)|src="([^":]+)"', text):
        path, _, heading = (link[0] or link[1]).partition("#")
        target = document.parent / path if path else document
        found = target.exists() and (not heading or heading in _anchors(target.read_text(encoding="utf-8")))
        if not found:
            missing.append(link[0] or link[1])
    return missing


def _anchors(text: str) -> set[str]:
    """Return the names that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def make_targets() -> set[str]:
    """Return the targets that `make help` lists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
