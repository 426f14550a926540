"""Frozen dataclasses from JSON and back, by the standard library: what a device reads without pydantic.

A class's type hints say what its JSON must be: ``str``, ``int``, ``float``, ``bool``, ``None``, `Literal`,
tuples, dictionaries, unions and other such classes, where ``Annotated`` adds constraints. Unknown and missing
fields are refused. `pydantic_records` does the same with pydantic for what only commands read;
pydantic reads these classes, with their constraints, as parts of its own.
"""

from __future__ import annotations

import json
import math
import re
import types
from abc import ABC, abstractmethod
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ccr_deploy.core.untrusted import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.errors import CcrDeployError

_Kind = TypeVar("_Kind")


class FieldError(ValueError):
    """A field is missing, unknown or wrong; the message begins with its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field}: {problem}" if field else problem)


class Constraint(ABC):
    """What a value must be beside its type; stands in ``Annotated``."""

    @abstractmethod
    def check(self, value: Any) -> Any:  # noqa: ANN401 -- whatever the annotated type is
        """The value itself.

        Raises:
            ValueError: it is not as it must be.
        """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401
        """What pydantic asks for where it reads such a field."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class Within(Constraint):
    """A number from `low` to `high`."""

    low: int
    high: int

    def check(self, value: Any) -> Any:  # noqa: ANN401
        """The number.

        Raises:
            ValueError: it is outside.
        """
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not from {self.low} to {self.high}")
        return value


@dataclass(frozen=True)
class Matches(Constraint):
    """A text, or a tuple of at least one text, each of which is a whole match of a regular expression."""

    pattern: str

    def check(self, value: Any) -> Any:  # noqa: ANN401
        """The text or the tuple.

        Raises:
            ValueError: one does not match, or there is none.
        """
        texts = (value,) if isinstance(value, str) else value
        if not texts:
            raise ValueError("at least one is needed")
        for text in texts:
            if not re.fullmatch(self.pattern, text):
                raise ValueError(f"{_shown(text)} does not match {self.pattern}")
        return value


def to_json(record: Any, indent: int | None = 2) -> str:  # noqa: ANN401 -- any dataclass
    """A record as JSON text; without `indent` in its shortest form."""
    separators = (",", ":") if indent is None else None
    return json.dumps(asdict(record), indent=indent, separators=separators, ensure_ascii=False)


def load_versioned_json(
    text: bytes, path: Path, *, version: int, error: type[CcrDeployError], remedy: str
) -> dict[str, Any]:
    """The object in a JSON text that states its ``schema_version``.

    `path` is where the text came from and `remedy` what to do where it is of no use, for messages.

    Raises:
        error: it is not JSON as `ccr_deploy.core.untrusted` takes it, or of another schema version.
    """
    try:
        content = parse_json(text)
    except ValueError as problem:
        raise error(f"{path}: not JSON, perhaps truncated ({problem}): {remedy}") from problem
    found = content.get("schema_version") if isinstance(content, dict) else None
    if type(found) is not int or found != version:
        raise error(f"{path}: schema version {str(found)[:40]}, this program reads {version}: {remedy}")
    assert isinstance(content, dict)
    return content


def read_record(kind: type[_Kind], content: object, where: str = "") -> _Kind:
    """The record of a class in what JSON held; `where` names it in messages.

    Raises:
        FieldError: a field is missing, unknown or wrong.
    """
    if not isinstance(content, dict):
        raise FieldError(where, f"an object is needed, found {_shown(content)}")
    declared = {field.name: field for field in fields(kind)}  # type: ignore[arg-type] # a dataclass
    for name in content:
        if name not in declared:
            raise FieldError(_inner(where, name[:40]), "there is no such field")
    for name, field in declared.items():
        if name not in content and field.default is MISSING and field.default_factory is MISSING:
            raise FieldError(_inner(where, name), "missing")
    hints = get_type_hints(kind, include_extras=True)
    values = {name: _value(hints[name], value, _inner(where, name)) for name, value in content.items()}
    try:
        return kind(**values)
    except ValueError as problem:
        raise FieldError(where, str(problem)) from problem


def _value(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _READERS:
        return _READERS[origin](arguments, value, where)
    if is_dataclass(hint):
        return read_record(hint, value, where)  # type: ignore[arg-type] # a class: hints are no instances
    if hint is float and type(value) in {int, float}:
        if not math.isfinite(value):
            raise FieldError(where, f"a finite number is needed, found {value}")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint not in {bool, object}):
        raise FieldError(where, f"{hint.__name__} is needed, found {_shown(value)}")
    return value


def _literal(choices: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise FieldError(where, f"{_shown(value)} is none of {', '.join(map(str, choices))}")
    return value


def _constrained(arguments: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    hint, *constraints = arguments
    found = _value(hint, value, where)
    for constraint in constraints:
        try:
            constraint.check(found)
        except ValueError as problem:  # noqa: PERF203
            raise FieldError(where, str(problem)) from problem
    return found


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    """The value as the first kind that it fits; where none does, what is wrong with it as the last."""
    if value is None and types.NoneType in kinds:
        return None
    failure = FieldError(where, f"{_shown(value)} is of no kind that is known here")
    for kind in (kind for kind in kinds if kind is not types.NoneType):
        try:
            return _value(kind, value, where)
        except FieldError as problem:  # noqa: PERF203
            failure = problem
    raise failure


def _items(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, list):
        raise FieldError(where, f"a list is needed, found {_shown(value)}")
    wanted = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    if len(value) != len(wanted):
        raise FieldError(where, f"{len(wanted)} values are needed, found {len(value)}")
    pairs = zip(wanted, value, strict=True)
    return tuple(_value(kind, item, _inner(where, str(number))) for number, (kind, item) in enumerate(pairs))


def _entries(kinds: tuple[Any, ...], value: Any, where: str) -> dict[Any, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise FieldError(where, f"an object is needed, found {_shown(value)}")
    names, kind = kinds
    return {
        _value(names, name, where): _value(kind, item, _inner(where, name[:40]))
        for name, item in value.items()
    }


_READERS = {
    Annotated: _constrained,
    Literal: _literal,
    Union: _one_of,
    types.UnionType: _one_of,
    tuple: _items,
    dict: _entries,
}


def _inner(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}..."
