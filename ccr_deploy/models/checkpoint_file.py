"""The file that a checkpoint is: looked at before it costs memory, and read without running its code.

`torch.save` writes a zip archive of stored records: one pickle that describes the tensors, and a record of
bytes for each. A pickle is read with ``weights_only=True``, which runs no code but still lets a few bytes ask
for gigabytes: records that inflate or overlap, a `bytearray` of any length, a tensor that repeats one
element. Here nothing may claim more bytes than the file has.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from ccr_deploy.core.untrusted import open_regular
from ccr_deploy.errors import CheckpointError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_PICKLE_BYTES = 16 << 20
"""Of the pickle that describes the tensors: a hundred times what ResNet-18 with its optimizer takes."""

_LEGACY_PICKLES = 4
"""Before the storages in files of PyTorch before 1.6: magic number, version, byte sizes, the object."""
_BYTEARRAY = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""PyTorch lets a pickle call it, with a content or with a length; it fills that with zeros."""
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")
_END = struct.Struct("<4s4xHHIIH")
_ZIP64_LOCATOR = struct.Struct("<4s4xQ4x")
_ZIP64_END_BYTES = 56


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """Read the dictionary that a checkpoint is; its tensors are on the CPU.

    Raises:
        WrongUsageError: there is no such file.
        CheckpointError: it is damaged, holds other than tensors and plain values, or claims more than it has.
    """
    try:
        with open_regular(path) as file:
            _check(file, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WrongUsageError(f"{path}: no such checkpoint") from None
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        named = _FORBIDDEN.search(str(error))
        what = f" (it names {named.group(1)})" if named else ""
        raise CheckpointError(
            f"{path}: refused: it is damaged or holds objects other than tensors and plain values, which "
            f"could run code when loaded{what}: save its state dict alone"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise CheckpointError(f"{path}: cannot be read, perhaps truncated ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint or state dict")
    return content


def check_claims(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Check that tensors claim no more bytes than their file has: views can repeat what is there.

    Raises:
        CheckpointError: they do.
    """
    claims = {name: tensor.numel() * tensor.element_size() for name, tensor in state_dict.items()}
    claimed, size = sum(claims.values()), path.stat().st_size
    if claimed > size:
        largest = max(claims, key=lambda name: claims[name])
        raise CheckpointError(
            f"{path}: refused: its tensors claim {claimed} bytes ({largest} alone {claims[largest]}), "
            f"the file has {size}"
        )


def _check(file: BinaryIO, path: Path) -> None:
    size = os.fstat(file.fileno()).st_size
    if file.read(4) == b"PK\x03\x04":
        streams, pickles = _checked_archive(file, path, size), 1
    else:
        file.seek(0)
        streams, pickles = [io.BytesIO(file.read(MAX_PICKLE_BYTES))], _LEGACY_PICKLES
    if any(name in _BYTEARRAY for stream in streams for name in _names(stream, pickles)):
        raise CheckpointError(
            f"{path}: refused: it holds a bytearray, which a few bytes can make of any length: "
            "save its state dict alone"
        )


def _checked_archive(file: BinaryIO, path: Path, size: int) -> list[io.BytesIO]:
    """The pickles of a zip archive whose records are stored, and together no longer than the file."""
    with zipfile.ZipFile(file) as archive:
        if not _ends_with_directory(file, size, archive.start_dir):
            raise CheckpointError(f"{path}: not an archive as torch.save writes it: save it again")
        records = archive.infolist()
        if compressed := [
            record.filename for record in records if record.compress_type != zipfile.ZIP_STORED
        ]:
            raise CheckpointError(
                f"{path}: refused: {len(compressed)} records are compressed ({compressed[0]}), which "
                "torch.save never does: save it again"
            )
        claimed = sum(record.file_size for record in records)
        if claimed > size:
            raise CheckpointError(f"{path}: refused: its records claim {claimed} bytes, the file has {size}")
        described = [record for record in records if record.filename.endswith(".pkl")]
        if any(record.file_size > MAX_PICKLE_BYTES for record in described):
            raise CheckpointError(
                f"{path}: refused: it describes its tensors in over {MAX_PICKLE_BYTES >> 20} MiB: "
                "save its state dict alone"
            )
        return [io.BytesIO(archive.read(record)) for record in described]


def _ends_with_directory(file: BinaryIO, size: int, directory: int) -> bool:
    """Whether the archive's end says what `zipfile` found, or PyTorch might read another directory."""
    file.seek(max(0, size - _END.size - _ZIP64_LOCATOR.size - _ZIP64_END_BYTES))
    tail = file.read()
    end, locator = tail[-_END.size :], tail[-_END.size - _ZIP64_LOCATOR.size : -_END.size]
    magic, _, _, _, stated, comment_bytes = _END.unpack(end)
    if magic != b"PK\x05\x06" or comment_bytes:
        return False
    magic, place = _ZIP64_LOCATOR.unpack(locator)
    if magic != b"PK\x06\x07":
        return bool(stated == directory)
    record = tail[-_END.size - _ZIP64_LOCATOR.size - _ZIP64_END_BYTES :]
    return (
        place == size - _END.size - _ZIP64_LOCATOR.size - _ZIP64_END_BYTES
        and record[:4] == b"PK\x06\x06"
        and int.from_bytes(record[48:56], "little") == directory
    )


def _names(stream: io.BytesIO, pickles: int) -> Iterator[str]:
    """The names that a file's pickles refer to, as ``module name``."""
    for _ in range(pickles):
        if stream.tell() == len(stream.getbuffer()):
            return
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                yield str(argument)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
