"""Write dictionaries as protobuf text, the format of Triton's ``config.pbtxt``.

A dictionary is a message, a list is a repeated field, a `Symbol` is the name of an enum value. A map is a
repeated message of key and value, as in protobuf: see `entries`. None and empty lists are omitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Message = dict[str, Any]


class Symbol(str):
    """A word that is written without quotes, such as the name of an enum value."""

    __slots__ = ()


def entries(mapping: Mapping[str, object]) -> list[Message]:
    """Return a mapping as the entries of a map field."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def to_pbtxt(message: Message) -> str:
    """Return the text of a message, one field per line.

    Raises:
        TypeError: if a value has a type that is not supported.
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
    raise TypeError(f"{type(value).__name__} is not supported in protobuf text")


def _escaped(byte: int) -> str:
    """Return a byte as a character if it is printable and not a quote or backslash, otherwise in octal."""
    return chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
