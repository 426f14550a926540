"""Records in files: frozen, without unknown fields, and read with one line about what is wrong.

What a product reads on a device is of `ccr_deploy.core.plain_records`, without pydantic.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

from ccr_deploy.core.plain_records import load_versioned_json
from ccr_deploy.core.untrusted import check_plain, read_bytes
from ccr_deploy.errors import first_problem

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.errors import CcrDeployError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


MAX_TOML_BYTES = 16 << 10
"""Ten times the largest that is shipped; what `tomllib` takes for a dotted key grows with its square."""


class Record(BaseModel):
    """A part of a file that this project writes or reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_Kind = TypeVar("_Kind", bound=BaseModel)


def parse_versioned_json(
    kind: type[_Kind], text: bytes, path: Path, *, version: int, error: type[CcrDeployError], remedy: str
) -> _Kind:
    """The record in a JSON text that states its ``schema_version``.

    `path` is where the text came from and `remedy` what to do where it is of no use, for messages.

    Raises:
        error: it is no JSON, of another schema version, or has a missing, unknown or wrong field.
    """
    load_versioned_json(text, path, version=version, error=error, remedy=remedy)
    try:
        return kind.model_validate_json(text, strict=True)
    except pydantic.ValidationError as problem:
        raise error(f"{path}: {first_problem(problem)}: {remedy}") from problem


def read_toml(kind: type[_Kind], path: Path, *, error: type[CcrDeployError]) -> _Kind:
    """The settings in a TOML file.

    Raises:
        error: there is no such file, it is no TOML, or has a missing, unknown or wrong field.
    """
    try:
        content = tomllib.loads(read_bytes(path, MAX_TOML_BYTES).decode())
        check_plain(content)
        # As JSON, since only there do strict fields take lists for tuples, and objects for dataclasses.
        return kind.model_validate_json(json.dumps(content, default=str), strict=True)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    except pydantic.ValidationError as problem:
        raise error(f"{path}: {first_problem(problem)}") from problem
    except (ValueError, RecursionError) as problem:  # a ValidationError is a ValueError too
        raise error(f"{path}: cannot be read as TOML ({problem})") from problem
