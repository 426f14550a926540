"""The fenced blocks of README.md and the site's pages, and what is checked of those that are not run.

A block is run unless the line above it says ``<!-- not run: REASON -->``. A block below
``<!-- server -->`` is run against a server.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy.cli import cli
from ccr_deploy.cli.common import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
MARKER = re.compile(r"<!-- (?P<kind>not run|server)(?:: (?P<reason>.*))? -->\n\s*\Z")


@dataclass(frozen=True)
class Fence:
    """One fenced block; `not_run` is the reason if it is not run."""

    document: Path
    line: int
    language: str
    text: str
    not_run: str | None
    needs_server: bool

    @property
    def commands(self) -> list[str]:
        """The commands of a console block, without their output."""
        return [line.removeprefix("$ ") for line in self._lines if line.startswith("$ ")]

    @property
    def output(self) -> str:
        """The output in a console block."""
        return "\n".join(line for line in self._lines if not line.startswith("$ "))

    @property
    def _lines(self) -> list[str]:
        return re.sub(r" *\\\n *", " ", self.text).splitlines()

    @property
    def place(self) -> str:
        """Where the block is, for messages and tests' names."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def fences(document: Path) -> list[Fence]:
    """Return the fenced blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        marker = MARKER.search(text[: match.start()])
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
        found.append(
            Fence(
                document,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                text="\n".join(lines) + "\n",
                not_run=marker["reason"] if marker and marker["kind"] == "not run" else None,
                needs_server=bool(marker and marker["kind"] == "server"),
            )
        )
    return found


def check_options(arguments: Sequence[str]) -> None:
    """Parse a ``ccr-deploy`` command line with the command itself, without running it."""
    name, *rest = arguments
    command = cli.commands[name]
    command.make_context(name, list(rest), obj=Invocation())


def check_shell(script: str) -> None:
    """Check the syntax of a shell script, and each of its commands that this repository has."""
    subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True, capture_output=True)
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|", line):
            if re.match(r" *(sudo |\w+=\S+ )*(ccr-deploy|make|python3?|pip|docker|sh|scripts/)", part):
                check_command(shlex.split(part, comments=True))


def check_command(words: Sequence[str]) -> None:
    """Check a command that is not run: its options, make targets, modules, extras and files."""
    words = list(words)
    while words and (words[0] == "sudo" or re.match(r"^\w+=", words[0])):
        del words[0]
    match words:
        case ["ccr-deploy", *arguments]:
            check_options(arguments[: arguments.index(">")] if ">" in arguments else arguments)
        case ["make", *targets]:
            assert set(targets) <= make_targets(), targets
        case ["python" | "python3", "-m", module, *_] if module != "venv":
            assert importlib.util.find_spec(module), module
        case ["pip", "install", package]:
            assert set(re.findall(r"[a-z0-9-]+", package)) <= extras(), package
    for word in words:
        if word.startswith(("scripts/", "deploy/", "calibration/", "training/", "benchmarks/", "tests/")):
            assert (ROOT / word).exists(), word


def make_targets() -> set[str]:
    """Return the targets of the Makefile, and the file that marks its environment."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {*re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE), ".venv/.ready"}


def extras() -> set[str]:
    """Return the extras of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return set(re.findall(r"^([a-z0-9-]+) = \[", table, flags=re.MULTILINE))


def repository_paths(document: Path) -> Iterator[str]:
    """Yield the files of the repository that a document names in its text as code."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    folders = "scripts|deploy|calibration|training|benchmarks|tests|engines|ccr_deploy|docs"
    yield from re.findall(rf"`((?:{folders})/[\w./*-]*)`", text)
