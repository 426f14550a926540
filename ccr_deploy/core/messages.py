"""Messages between processes: records as MessagePack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


def pack(message: object) -> bytes:
    """Return the bytes of a record, or of anything else that `unpack` is told the type of."""
    return msgspec.msgpack.encode(message, enc_hook=_path_to_bytes)


def unpack(kind: Any, content: bytes) -> Any:  # noqa: ANN401 -- a union is no type to a type checker
    """Return what `pack` was given; `kind` is its type, or a union of records that are tagged."""
    return msgspec.msgpack.decode(content, type=kind, dec_hook=_by_kind)


def _path_to_bytes(value: object) -> bytes:
    if isinstance(value, Path):
        return os.fsencode(value)  # not every name of a file is a text
    raise NotImplementedError(f"no way to send {value!r}")


def _by_kind(kind: Any, content: Any) -> Any:  # noqa: ANN401
    if kind is Path:
        return Path(os.fsdecode(content))
    return kind.from_builtins(content)
