"""Docstrings of functions begin with a verb, and those of public functions name every parameter."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(
    folder
    for package in ("ccr_deploy", "training")
    for folder in [ROOT / package, *(ROOT / package).iterdir()]
    if folder.is_dir() and any(folder.glob("*.py"))
)
NO_VERBS = re.compile(
    "an?|the|th(is|ese|at|ose)|who(se)?|wh(at|ich|ere|en|ether|y)|how|if|as|all|any|both|each|either|every|not?|none"
    "|nothing|one|two|three|several|some|such|its?|they|true|false|and|or|for|from|in|into|of|on|to|with",
    re.IGNORECASE,
)
"""First words that are not verbs; Ruff's D401 refuses verbs that are not in the imperative mood."""
MANY_PARAMETERS = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_function_docstring_begins_with_a_verb(folder: Path) -> None:
    wrong = [
        f"{where}: {docstring.splitlines()[0]}"
        for where, function in functions(folder)
        if (docstring := ast.get_docstring(function))
        and not is_property(function)
        and not begins_with_verb(docstring)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_many_parameters_are_documented_one_by_one(folder: Path) -> None:
    wrong = []
    for where, function in functions(folder):
        names = parameters(function)
        if len(names) < MANY_PARAMETERS or function.name.startswith("_") or is_command(function):
            continue
        documented = set(
            re.findall(r"^ +\*{0,2}(\w+)(?: \(.*\))?: ", arguments_section(function), re.MULTILINE)
        )
        if missing := [name for name in names if name not in documented]:
            wrong.append(f"{where}: {', '.join(missing)}")
    assert not wrong, "\n".join(wrong)


def test_a_docstring_without_a_verb_is_found() -> None:
    assert not begins_with_verb("The engine's hash.")
    assert not begins_with_verb("An engine.")
    assert begins_with_verb("Return the engine's hash.")


def functions(folder: Path) -> Iterator[tuple[str, Function]]:
    """Yield the location and node of each function in a folder's modules, including sub-folders."""
    top_level = folder.parent == ROOT
    for path in sorted(folder.glob("*.py") if top_level else folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def begins_with_verb(docstring: str) -> bool:
    word = re.split(r"[\s,.:;]", docstring, maxsplit=1)[0]
    return word[:1].isupper() and word.isalpha() and not NO_VERBS.fullmatch(word)


def is_property(function: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def is_command(function: Function) -> bool:
    """Return whether the docstring is a command's help text; its options have help texts of their own."""
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def parameters(function: Function) -> list[str]:
    own = function.args
    every = [*own.posonlyargs, *own.args, *own.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in {"self", "cls"}]


def arguments_section(function: Function) -> str:
    docstring = ast.get_docstring(function) or ""
    found = re.search(r"^Args:\n((?: +.*\n?|\n)*)", docstring, re.MULTILINE)
    return found.group(1) if found else ""
