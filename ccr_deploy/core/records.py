"""Records: typed data that is written to files or sent between processes, and validated when read.

A record is a frozen `msgspec.Struct` that refuses unknown fields. This module handles msgspec's limits, so
that no other module has to:

* msgspec writes NaN and infinity as ``null``. This module refuses them, or writes them as NaN and Infinity if
  the caller allows it.
* Its error messages omit the value that was found, the key in a dictionary and the values that a `Literal`
  allows. This module adds them.
* Constructors validate nothing. A record that code could construct with wrong values checks itself in
  ``__post_init__``, which also runs when it is read.
* A tag cannot have the name of a field: the options of a target have the tag ``backend``, and the target
  itself has no such field.
* A union must list all its records where it is declared. A field whose type depends on a name in the content
  has a marker class as its type; the marker's class method ``from_builtins`` finds the type and reads it.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ccr_deploy.core.field_errors import FieldError, field_error, find_non_finite
from ccr_deploy.core.untrusted import MAX_VALUES, check_plain, parse_json, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.errors import CcrDeployError

MAX_TOML_BYTES = 16 << 10
"""Ten times the largest shipped file. The time that `tomllib` needs for a dotted key grows quadratically."""

_NUMBER = r"(?:-?\d[\d.eE+-]*|-?Infinity|NaN)"
_NUMBERS = re.compile(rf"\[\s*\n\s*({_NUMBER}(?:,\s*{_NUMBER})*)\s*\]")
"""A list of numbers over several lines; a text in JSON cannot match it, because it has no line breaks."""

_Kind = TypeVar("_Kind")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of all data that this project writes and reads; refuses unknown fields."""


def convert(kind: type[_Kind], content: object, *, nan: bool = False) -> _Kind:
    """Convert parsed JSON or TOML to a record or another type, and validate it.

    Args:
        kind: the type to convert to.
        content: dictionaries, lists, strings and numbers.
        nan: whether numbers may be NaN or infinite.

    Raises:
        FieldError: if a field is missing, unknown or has a wrong value.
    """
    if not nan and (found := find_non_finite(content)):
        raise found
    try:
        return _converted(kind, content)
    except msgspec.ValidationError as error:
        raise field_error(kind, content, error, _converted) from error


def to_builtins(record: object) -> Any:  # noqa: ANN401 -- dictionaries, lists, strings and numbers
    """Convert a record to dictionaries, lists, strings and numbers."""
    return msgspec.to_builtins(record, enc_hook=_plain)


def to_json(record: object, *, indent: int | None = 2, nan: bool = False) -> str:
    """Return a record as JSON text; a list of numbers is on one line.

    Args:
        record: the record to write.
        indent: spaces for each level; None writes the shortest form, on one line.
        nan: whether numbers may be NaN or infinite.

    Raises:
        ValueError: if a number is NaN or infinite and `nan` is false.
    """
    separators = (",", ":") if indent is None else None
    # Python's json instead of msgspec's, which writes NaN as null.
    content = to_builtins(record)
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False, allow_nan=nan)
    return text if indent is None else _NUMBERS.sub(_on_one_line, text)


def canonical_json(content: object) -> bytes:
    """Return a record or JSON content in the canonical form that hashes are computed from.

    Keys are sorted, there is no white space, and all characters are ASCII.
    """
    text = json.dumps(to_builtins(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def first_difference(found: object, expected: object, name: str = "") -> tuple[str, object, object] | None:
    """Return the first field in which two records differ, as (dotted name, found, expected).

    Args:
        found: a record, a tuple of records, or a value that is compared as a whole.
        expected: what it is compared with, of the same type.
        name: the field that the two are the values of; empty for whole records.

    Returns:
        None if they are equal.
    """
    if isinstance(found, Record) and type(found) is type(expected):
        for field in found.__struct_fields__:
            inner = f"{name}.{field}" if name else field
            if difference := first_difference(getattr(found, field), getattr(expected, field), inner):
                return difference
        return None
    if isinstance(found, tuple) and isinstance(expected, tuple) and len(found) == len(expected):
        pairs = zip(found, expected, strict=True)
        differences = (first_difference(*pair, f"{name}[{index}]") for index, pair in enumerate(pairs))
        return next(filter(None, differences), None)
    return None if found == expected else (name, found, expected)


def parse_versioned_json(
    kind: type[_Kind],
    text: bytes,
    path: Path,
    *,
    version: int,
    error: type[CcrDeployError],
    remedy: str,
    nan: bool = False,
    max_values: int = MAX_VALUES,
) -> _Kind:
    """Read a record from JSON text with a ``schema_version``.

    Args:
        kind: the record's class.
        text: the whole text, in UTF-8.
        path: the file that the text came from, for messages.
        version: the only supported schema version.
        error: the exception to raise.
        remedy: what the user can do if the text cannot be used, for messages.
        nan: whether numbers may be NaN or infinite.
        max_values: largest number of values in the text.

    Raises:
        error: if it is not JSON, has another schema version, or a field is missing, unknown or wrong.
    """
    try:
        content = parse_json(text, max_values)
    except ValueError as problem:
        raise error(f"{path}: not JSON, perhaps truncated ({problem}): {remedy}") from problem
    found = content.get("schema_version") if isinstance(content, dict) else None
    # isinstance would accept true, which equals 1.
    if type(found) is not int or found != version:
        raise error(
            f"{path}: schema version {str(found)[:40]} is not supported, expected {version}: {remedy}"
        )
    try:
        return convert(kind, content, nan=nan)
    except FieldError as problem:
        raise error(f"{path}: {problem}: {remedy}") from problem


def read_toml(kind: type[_Kind], path: Path, *, error: type[CcrDeployError]) -> _Kind:
    """Read a record from a TOML file.

    Args:
        kind: the record's class.
        path: the file.
        error: the exception to raise.

    Raises:
        error: if the file does not exist, is not TOML, or a field is missing, unknown or wrong.
    """
    if sys.version_info >= (3, 11):  # JetPack 6 has Python 3.10
        import tomllib
    else:
        import tomli as tomllib

    try:
        content = tomllib.loads(read_bytes(path, MAX_TOML_BYTES).decode())
        check_plain(content)  # TOML has integers of any size, which msgspec cannot hold
        return convert(kind, content)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    except FieldError as problem:
        raise error(f"{path}: {problem}") from problem
    except (ValueError, RecursionError) as problem:  # a FieldError is a ValueError too
        raise error(f"{path}: cannot be read as TOML ({problem})") from problem


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{', '.join(number.strip() for number in numbers[1].split(','))}]"


def _plain(value: object) -> object:
    """Convert a library's subclass of str, int or float (torch's version, NumPy's floats) to Python's own."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be written")


def _converted(kind: type[_Kind], content: object) -> _Kind:
    return msgspec.convert(content, kind, dec_hook=_by_name)


def _by_name(marker: Any, content: object) -> Any:  # noqa: ANN401
    """Read a field whose type is a marker class, by the marker's class method ``from_builtins``."""
    if hasattr(marker, "from_builtins"):
        return marker.from_builtins(content)
    raise NotImplementedError(f"{marker} cannot be read")
