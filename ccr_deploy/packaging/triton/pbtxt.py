"""Dictionaries as protobuf text, the format of Triton's ``config.pbtxt``.

A dictionary is a message, a list a repeated field, a `Symbol` the name of an enumeration's value. A map is
what protobuf says it is, a repeated message of key and value: see `entries`. What is None or an empty list
is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Message = dict[str, Any]


class Symbol(str):
    """A word that is written without quotes."""

    __slots__ = ()


def entries(mapping: Mapping[str, object]) -> list[Message]:
    """Return a map field's entries."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def to_pbtxt(message: Message) -> str:
    """Return the text of a message, one field a line.

    Raises:
        TypeError: a field has a type that protobuf text does not know here.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if value is None or value == []:
            continue
        if isinstance(value, dict):
            yield f"{name} {{"
            yield from (f"  {line}" for line in _lines(value))
            yield "}"
        elif isinstance(value, list) and isinstance(value[0], dict):
            for element in value:
                yield from _lines({name: element})
        elif isinstance(value, list):
            yield f"{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, Symbol):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value.encode()))}"'
    raise TypeError(f"a {type(value).__name__} is nothing that protobuf text holds")


def _escaped(byte: int) -> str:
    """A byte as itself if it is printable and no quote or backslash, else in octal."""
    return chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
