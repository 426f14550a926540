"""Messages between processes: records encoded as MessagePack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


def pack(message: object) -> bytes:
    """Encode a record, or another value whose type the receiver passes to `unpack`."""
    return msgspec.msgpack.encode(message, enc_hook=_path_to_bytes)


def unpack(kind: Any, content: bytes) -> Any:  # noqa: ANN401 -- a union is not a `type` for mypy
    """Decode a message; `kind` is its type, or a union of tagged records."""
    return msgspec.msgpack.decode(content, type=kind, dec_hook=_by_kind)


def _path_to_bytes(value: object) -> bytes:
    if isinstance(value, Path):
        return os.fsencode(value)  # a file name need not be valid Unicode
    raise NotImplementedError(f"{value!r} cannot be sent in a message")


def _by_kind(kind: Any, content: Any) -> Any:  # noqa: ANN401
    if kind is Path:
        return Path(os.fsdecode(content))
    return kind.from_builtins(content)
