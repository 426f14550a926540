"""What is wrong with a record: the field, what was expected there, and what was found."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from ccr_deploy.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Path = tuple[str, ...]
_WHERE = r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z"
_STEP = r"\.([^.\[]+)|\[(\d+|\.\.\.)\]"
_FIELD = r"Object (contains unknown|missing required) field `(.*)`"
_ANY_KEY = "..."
_THE_KEY = "(key)"


class FieldError(ValueError):
    """A field is missing, unknown or wrong; the message begins with its name."""

    def __init__(self, field: _Path, problem: str) -> None:
        self.field = field
        self.problem = problem
        name = ".".join(printable(step[:40]) for step in field)
        super().__init__(f"field {name}: {problem}" if field else problem)


def explained(
    kind: Any,  # noqa: ANN401
    content: object,
    error: msgspec.ValidationError,
    read: Callable[[Any, object], object],
) -> FieldError:
    """Return msgspec's failure with the field, what was expected and what was found.

    Args:
        kind: the type that was asked for.
        content: what is not of that type.
        error: what msgspec said of it.
        read: how it was read; called again to find which of a dictionary's entries is wrong.
    """
    if _holds_backtick(content):  # which msgspec's messages use as quotes
        return FieldError((), "a field or an entry has a name with a backtick")
    message = str(error)
    where = re.search(_WHERE, message)
    problem = message[: where.start()] if where else message
    steps = tuple(name or number for name, number in re.findall(_STEP, where["path"] if where else ""))
    path = _with_keys(content, steps, lambda changed: _failure(kind, changed, read) == message)
    if isinstance(error.__cause__, FieldError):  # of a record inside that was found by name
        return FieldError((*path, *error.__cause__.field), error.__cause__.problem)
    if isinstance(error.__cause__, ValueError):
        return FieldError(path, str(error.__cause__))
    if named := re.fullmatch(_FIELD, problem, re.DOTALL):
        what = "there is no such field" if named[1] == "contains unknown" else "missing"
        return FieldError((*path, named[2]), what)
    found = _at(content, path)
    if problem.startswith("Invalid "):  # of a Literal, or of a tag
        is_key = where is not None and where["key"] is not None
        choices = _choices(kind, (*path, _THE_KEY) if is_key else path)
        if is_key and isinstance(found, dict):
            found = next((key for key in found if key not in choices), found)
        return FieldError(path, f"expected one of {', '.join(choices)}, found {_shown(found)}")
    expected = problem.partition(", got ")[0].replace("`", "").replace("Expected", "expected")
    return FieldError(path, f"{expected}, found {_shown(found)}")


def _with_keys(content: object, steps: _Path, fails_alike: Callable[[object], bool]) -> _Path:
    """Put keys in the place of ``[...]``: those whose entries alone make reading fail in the same way.

    The entries are halved until one is left, since reading thousands of them one by one would take minutes.
    """
    if _ANY_KEY not in steps:
        return steps
    index = steps.index(_ANY_KEY)
    outer, inner = steps[:index], steps[index + 1 :]
    found = _at(content, outer)
    entries = list(found.items()) if isinstance(found, dict) else []
    while len(entries) > 1:
        half = entries[: len(entries) // 2]
        entries = half if fails_alike(_replaced(content, outer, dict(half))) else entries[len(half) :]
    if not entries or not fails_alike(_replaced(content, outer, dict(entries))):
        return outer
    return _with_keys(content, (*outer, str(entries[0][0]), *inner), fails_alike)


def _holds_backtick(content: object) -> bool:
    if isinstance(content, dict):
        return any("`" in str(key) or _holds_backtick(value) for key, value in content.items())
    return isinstance(content, list | tuple) and any(map(_holds_backtick, content))


def _failure(kind: Any, content: object, read: Callable[[Any, object], object]) -> str:  # noqa: ANN401
    try:
        read(kind, content)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _replaced(content: Any, path: _Path, value: object) -> object:  # noqa: ANN401
    """Return a copy of some content with another value at a path."""
    if not path:
        return value
    first, *rest = path
    if isinstance(content, dict):
        return {**content, first: _replaced(content[first], tuple(rest), value)}
    index = int(first)
    return [*content[:index], _replaced(content[index], tuple(rest), value), *content[index + 1 :]]


def _at(content: Any, path: _Path) -> Any:  # noqa: ANN401
    for step in path:
        content = content[int(step)] if isinstance(content, list | tuple) else content.get(step)
    return content


def _choices(kind: Any, path: _Path) -> list[str]:  # noqa: ANN401
    """Return the choices of the `Literal` at a path."""
    kinds = [inspect.type_info(kind)]
    for step in path:
        kinds = [inner for outer in kinds for inner in _inner(outer, step)]
    literals = [one for kind in kinds for one in _alternatives(kind) if isinstance(one, inspect.LiteralType)]
    return [str(value) for literal in literals for value in literal.values]


def _inner(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """Yield the types of what is inside a type: one field, or the items of a collection."""
    for found in _alternatives(kind):
        if isinstance(found, inspect.StructType) and found.tag_field == step:
            yield inspect.LiteralType((found.tag,))
        elif isinstance(found, inspect.StructType):
            yield from (field.type for field in found.fields if field.encode_name == step)
        elif isinstance(found, inspect.DictType):
            yield found.key_type if step == _THE_KEY else found.value_type
        elif isinstance(found, inspect.TupleType):
            yield found.item_types[int(step)]
        elif isinstance(found, inspect.ListType | inspect.VarTupleType):
            yield found.item_type


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def not_finite(content: object) -> FieldError | None:
    """Return what is wrong with the first number that is NaN or infinite; None if all are finite."""
    path = next(_not_finite(content, ()), None)
    return None if path is None else FieldError(path, f"expected a finite number, found {_at(content, path)}")


def _not_finite(content: object, path: _Path) -> Iterator[_Path]:
    if isinstance(content, float) and not math.isfinite(content):
        yield path
    elif isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _not_finite(value, (*path, str(key)))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}..."
