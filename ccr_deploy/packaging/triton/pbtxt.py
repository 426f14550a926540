"""Frozen dataclasses as protobuf text, the format of Triton's ``config.pbtxt``.

A dataclass is a message whose fields have its own names. A tuple is a repeated field, a mapping a map
field, an enumeration's member the symbol of its name. What is None or empty is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_INDENT = "  "


def to_pbtxt(message: DataclassInstance) -> str:
    """The text of a message, one field a line.

    Raises:
        TypeError: a field has a type that protobuf text does not know here.
    """
    return "".join(f"{line}\n" for line in _message_lines(message))


def _message_lines(message: DataclassInstance) -> Iterator[str]:
    for field in fields(message):
        yield from _field_lines(field.name, getattr(message, field.name))


def _field_lines(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401 -- whatever a field holds
    if value is None:
        return
    if isinstance(value, tuple) and all(isinstance(element, int) for element in value):
        if value:
            yield f"{name}: [{', '.join(map(str, value))}]"
    elif isinstance(value, tuple):
        for element in value:
            yield from _field_lines(name, element)
    elif isinstance(value, Mapping):
        for key, element in value.items():
            yield from _block(name, [*_field_lines("key", key), *_field_lines("value", element)])
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _block(name, _message_lines(value))
    else:
        yield f"{name}: {_scalar(value)}"


def _block(name: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    yield f"{name} {{"
    for line in lines:
        yield f"{_INDENT}{line}"
    yield "}"


def _scalar(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value.encode()))}"'
    raise TypeError(f"a {type(value).__name__} is nothing that protobuf text holds")


def _escaped(byte: int) -> str:
    """A byte as itself where it is printable and no quote or backslash, else in octal."""
    return chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
