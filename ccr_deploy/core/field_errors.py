"""Validation errors of records: which field, what was expected, what was found."""

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

# msgspec's messages end with the place: "- at `$.graphs[3].file`", or "- at `key` in `$.metrics`" if a key is
# wrong. "[...]" stands for an entry of a dictionary, whose key is not given.
_WHERE = r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`\Z"
_STEP = r"\.([^.\[]+)|\[(\d+|\.\.\.)\]"
_FIELD = r"Object (contains unknown|missing required) field `(.*)`"
_ANY_KEY = "..."
_THE_KEY = "(key)"


class FieldError(ValueError):
    """A field is missing, unknown or has a wrong value; the message begins with its name."""

    def __init__(self, field: _Path, problem: str) -> None:
        self.field = field
        self.problem = problem
        name = ".".join(printable(step[:40]) for step in field)
        super().__init__(f"field {name}: {problem}" if field else problem)


def field_error(
    kind: Any,  # noqa: ANN401
    content: object,
    error: msgspec.ValidationError,
    read: Callable[[Any, object], object],
) -> FieldError:
    """Make a `FieldError` with field, expected and found value from a msgspec error.

    Args:
        kind: the type that was expected.
        content: the content that does not have this type.
        error: msgspec's error.
        read: the function that reads content as a type; called again to find which entry of a dictionary is
            wrong, since msgspec does not name the key.
    """
    if _holds_backtick(content):  # msgspec quotes names with backticks, so its message cannot be parsed
        return FieldError((), "a field or an entry has a name with a backtick")
    message = str(error)
    where = re.search(_WHERE, message)
    problem = message[: where.start()] if where else message
    steps = tuple(name or number for name, number in re.findall(_STEP, where["path"] if where else ""))
    path = _with_keys(content, steps, lambda changed: _failure(kind, changed, read) == message)
    if isinstance(error.__cause__, FieldError):  # raised by a nested record's `from_builtins`
        return FieldError((*path, *error.__cause__.field), error.__cause__.problem)
    if isinstance(error.__cause__, ValueError):
        return FieldError(path, str(error.__cause__))
    if named := re.fullmatch(_FIELD, problem, re.DOTALL):
        what = "unknown field" if named[1] == "contains unknown" else "missing"
        return FieldError((*path, named[2]), what)
    found = _at(content, path)
    if problem.startswith("Invalid "):  # a wrong value of a Literal, or a wrong tag
        is_key = where is not None and where["key"] is not None
        choices = _choices(kind, (*path, _THE_KEY) if is_key else path)
        if is_key and isinstance(found, dict):
            found = next((key for key in found if key not in choices), found)
        return FieldError(path, f"expected one of {', '.join(choices)}, found {_shown(found)}")
    expected = problem.partition(", got ")[0].replace("`", "").replace("Expected", "expected")
    return FieldError(path, f"{expected}, found {_shown(found)}")


def _with_keys(content: object, steps: _Path, fails_alike: Callable[[object], bool]) -> _Path:
    """Replace each ``[...]`` in a path by the key of an entry that causes the same error when read alone.

    The entry is found by bisection: reading thousands of entries one by one would take minutes.
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
    """Return a copy of `content` with another value at `path`."""
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
    """Return the values that the `Literal` at a path allows."""
    kinds = [inspect.type_info(kind)]
    for step in path:
        kinds = [inner for outer in kinds for inner in _inner(outer, step)]
    literals = [one for kind in kinds for one in _alternatives(kind) if isinstance(one, inspect.LiteralType)]
    return [str(value) for literal in literals for value in literal.values]


def _inner(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """Yield the types of one field of a record, or of the items of a collection."""
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


def find_non_finite(content: object) -> FieldError | None:
    """Return the error for the first number that is NaN or infinite; None if all are finite."""
    path = next(_non_finite(content, ()), None)
    return None if path is None else FieldError(path, f"expected a finite number, found {_at(content, path)}")


def _non_finite(content: object, path: _Path) -> Iterator[_Path]:
    if isinstance(content, float) and not math.isfinite(content):
        yield path
    elif isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _non_finite(value, (*path, str(key)))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}..."
