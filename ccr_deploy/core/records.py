"""Records: what this project writes to files or sends between processes, and reads back with care.

A record is a frozen `msgspec.Struct` without unknown fields. msgspec leaves some things to its user, all of
which are seen to here and nowhere else:

* NaN and infinity would be written as ``null``: they are refused, or written as they are where a record may
  hold them.
* Its messages omit the value that was found, a dictionary's key and a `Literal`'s choices: they are added.
* Constructors check nothing: a record whose own code could make it wrong checks itself in ``__post_init__``,
  which runs on reading too.
* The name of a tag cannot be a field's too: a record's options say ``backend``, and the record does not.
* A union of records must be known in full where it is declared. A field whose kinds are found by name has a
  marker class as its type, with a class method ``from_builtins`` that finds the kind and reads it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ccr_deploy.core.field_errors import FieldError, explained, not_finite
from ccr_deploy.core.untrusted import check_plain, parse_json, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.errors import CcrDeployError

MAX_TOML_BYTES = 16 << 10
"""Ten times the largest that is shipped; what `tomllib` takes for a dotted key grows with its square."""

_Kind = TypeVar("_Kind")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file that this project writes or reads."""


def convert(kind: type[_Kind], content: object, *, nan: bool = False) -> _Kind:
    """Read a record, or anything else that has a type, from what JSON or TOML held.

    Args:
        kind: the type.
        content: dictionaries, lists, texts and numbers.
        nan: whether numbers may be NaN or infinite.

    Raises:
        FieldError: a field is missing, unknown or wrong.
    """
    if not nan and (found := not_finite(content)):
        raise found
    try:
        return _converted(kind, content)
    except msgspec.ValidationError as error:
        raise explained(kind, content, error, _converted) from error


def to_builtins(record: object) -> Any:  # noqa: ANN401 -- dictionaries, lists, texts and numbers
    """Return a record as JSON has it."""
    return msgspec.to_builtins(record, enc_hook=_plain)


def to_json(record: object, *, indent: int | None = 2, nan: bool = False) -> str:
    """Return a record as JSON text; without `indent` in its shortest form.

    Raises:
        ValueError: it holds NaN or infinity, and `nan` does not allow it.
    """
    separators = (",", ":") if indent is None else None
    content = to_builtins(record)
    return json.dumps(content, indent=indent, separators=separators, ensure_ascii=False, allow_nan=nan)


def canonical_json(content: object) -> bytes:
    """Return a record, or what JSON has, in the one form that hashes are taken of.

    The keys are sorted, there is no white space, and all characters are ASCII.
    """
    text = json.dumps(to_builtins(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def parse_versioned_json(
    kind: type[_Kind],
    text: bytes,
    path: Path,
    *,
    version: int,
    error: type[CcrDeployError],
    remedy: str,
    nan: bool = False,
) -> _Kind:
    """Read the record in a JSON text that states its ``schema_version``.

    Args:
        kind: the record's class.
        text: the whole text, UTF-8.
        path: where the text came from, for messages.
        version: the only schema version that is read.
        error: what is raised.
        remedy: what to do if the text is of no use, for messages.
        nan: whether numbers may be NaN or infinite.

    Raises:
        error: it is not JSON, of another schema version, or has a missing, unknown or wrong field.
    """
    try:
        content = parse_json(text)
    except ValueError as problem:
        raise error(f"{path}: not JSON, perhaps truncated ({problem}): {remedy}") from problem
    found = content.get("schema_version") if isinstance(content, dict) else None
    if type(found) is not int or found != version:
        raise error(f"{path}: schema version {str(found)[:40]}, this program reads {version}: {remedy}")
    try:
        return convert(kind, content, nan=nan)
    except FieldError as problem:
        raise error(f"{path}: {problem}: {remedy}") from problem


def read_toml(kind: type[_Kind], path: Path, *, error: type[CcrDeployError]) -> _Kind:
    """Read the settings in a TOML file.

    Raises:
        error: there is no such file, it is no TOML, or has a missing, unknown or wrong field.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        content = tomllib.loads(read_bytes(path, MAX_TOML_BYTES).decode())
        check_plain(content)
        return convert(kind, content)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    except FieldError as problem:
        raise error(f"{path}: {problem}") from problem
    except (ValueError, RecursionError) as problem:  # a FieldError is a ValueError too
        raise error(f"{path}: cannot be read as TOML ({problem})") from problem


def _plain(value: object) -> object:
    """Return a library's own kind of text or number as Python's: torch's version, NumPy's floats."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise NotImplementedError(f"no way to write {type(value).__name__}")


def _converted(kind: type[_Kind], content: object) -> _Kind:
    return msgspec.convert(content, kind, dec_hook=_by_name)


def _by_name(marker: Any, content: object) -> Any:  # noqa: ANN401
    """Read a field whose kinds are found by name, or one of an abstract type that NumPy or Python has."""
    if hasattr(marker, "from_builtins"):
        return marker.from_builtins(content)
    raise NotImplementedError(f"no way to read {marker}")
