"""Read a checkpoint file safely: no code in it runs, and it cannot demand more memory than its own size.

`torch.save` writes a zip archive of uncompressed records: one pickle that describes the tensors, and one
record with the bytes of each tensor. Reading with ``weights_only=True`` runs no code. But a small file could
still demand gigabytes, by compressed or overlapping records, a `bytearray` of any length, or a tensor that
repeats one element. So the sizes that a file declares are checked before it is loaded.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from ccr_deploy.core.atomic import atomic_file
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import Record, convert
from ccr_deploy.core.untrusted import check_plain, open_regular
from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.family import MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_Kind = TypeVar("_Kind", bound=Record)

MAX_PICKLE_BYTES = 16 << 20
"""Limit for the pickle that describes the tensors: 100 times that of a ResNet-18 with its optimizer."""

_LEGACY_PICKLES = 4
"""Files of PyTorch before 1.6 begin with four pickles: magic number, version, byte sizes, the object."""
_BYTEARRAY = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""PyTorch allows pickles to call bytearray; called with a length, it allocates that many zeros."""
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")
# Records at the end of a zip archive; see PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16.
_END = struct.Struct("<4s4xHHIIH")
_ZIP64_LOCATOR = struct.Struct("<4s4xQ4x")
_ZIP64_END_BYTES = 56


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """Read a checkpoint's dictionary, with its tensors on the CPU.

    Raises:
        WrongUsageError: if the file does not exist.
        CheckpointError: if it is damaged, contains objects other than tensors and plain values, or declares
            more bytes than it has.
    """
    try:
        with open_regular(path) as file:
            _check(file, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WrongUsageError(f"{path}: no such file") from None
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        named = _FORBIDDEN.search(str(error))
        what = f" ({named.group(1)})" if named else ""
        raise CheckpointError(
            f"{path}: refused: it is damaged or contains objects other than tensors and plain values, which "
            f"could run code when loaded{what}: save only its state dict"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or _first_line(error)})") from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch checkpoint ({_first_line(error)}): "
            "give a complete file that torch.save wrote"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint or state dict but a {type(content).__name__}")
    return content


def check_version(content: Mapping[Any, Any], path: Path, version: int, remedy: str) -> None:
    """Check the version of a file in one of the project's own formats.

    Args:
        content: the file's dictionary.
        path: the file, for messages.
        version: the only supported version.
        remedy: what the user can do, for messages.

    Raises:
        CheckpointError: if the file has another version or none.
    """
    found = content.get("version")
    if type(found) is not int or found != version:
        shown = found if type(found) is int else f"of type {type(found).__name__}"
        raise CheckpointError(
            f"{path}: checkpoint version {shown} is not supported, expected {version}: {remedy}"
        )


def read_description(kind: type[_Kind], content: Mapping[Any, Any], path: Path, remedy: str) -> _Kind:
    """Read the part of a checkpoint that describes its weights.

    Args:
        kind: the record to read.
        content: its fields.
        path: the file, for messages.
        remedy: what the user can do, for messages.

    Raises:
        CheckpointError: if a field is missing, unknown or has a wrong value.
    """
    try:
        check_plain(content)
        # Through JSON, so that other objects in the pickle are shown by their type instead of their content.
        text = json.dumps(content, default=lambda value: f"a {type(value).__name__}")
        return convert(kind, json.loads(text))
    except FieldError as error:
        raise CheckpointError(f"{path}: configuration {error}: {remedy}") from error
    except (ValueError, TypeError) as error:  # TypeError: a key is not a string or number
        raise CheckpointError(f"{path}: {error}: {remedy}") from error


def tensors_of(state_dict: object, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, without its other entries.

    Raises:
        CheckpointError: if it has none.
    """
    tensors = (
        {str(name): value for name, value in state_dict.items() if isinstance(value, Tensor)}
        if isinstance(state_dict, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{path}: not a checkpoint or state dict: it has no tensors")
    return tensors


def unwrapped(state_dict: object, path: Path) -> dict[str, Tensor]:
    """Return the model's tensors without the prefix of a wrapper (Lightning, DDP, torch.compile).

    Raises:
        CheckpointError: if there are no tensors, or several models.
    """
    tensors = tensors_of(state_dict, path)
    found = [name for name in tensors if name == MARKER or name.endswith(f".{MARKER}")]
    if len(found) > 1:
        raise CheckpointError(f"{path}: has {len(found)} models ({', '.join(found[:3])}): save only one")
    prefix = found[0].removesuffix(MARKER) if found else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_fit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """Check that tensors have a network's names, shapes and kinds of numbers, and finite values.

    Args:
        found: the file's tensors by name.
        expected: the network's state dict; may be on the device ``meta``.
        path: the file, for messages.
        remedy: what the user can do if names or shapes differ, for messages.

    Raises:
        CheckpointError: if they do not fit; the message names the first of them.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshaped = [
        f"{name} is {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what} ({first_names(names)})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of a wrong shape", misshaped))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{path}: the state dict does not fit the model: {'; '.join(problems)}: {remedy}"
        )
    check_declared_sizes(found, path)
    requirements: dict[str, Callable[[str, Tensor], object]] = {
        "are sparse, have no data, or are not of the expected kind of number": lambda name, tensor: (
            tensor.layout == torch.strided
            and not tensor.is_meta
            and tensor.is_floating_point() == expected[name].is_floating_point()
        ),
        "contain NaN or infinity": lambda _, tensor: torch.isfinite(tensor).all(),
    }
    for complaint, holds in requirements.items():
        if wrong := [name for name, tensor in found.items() if not holds(name, tensor)]:
            raise CheckpointError(f"{path}: {len(wrong)} tensors {complaint} ({', '.join(wrong[:3])})")


def first_names(names: Sequence[str]) -> str:
    """Return the first three of several names, for a message."""
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def check_declared_sizes(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Check that all tensors together are not larger than their file: a view can repeat its elements.

    Raises:
        CheckpointError: if they are.
    """
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in state_dict.items()}
    declared, size = sum(sizes.values()), path.stat().st_size
    if declared > size:
        largest = max(sizes, key=lambda name: sizes[name])
        raise CheckpointError(
            f"{path}: refused: its tensors declare {declared} bytes ({largest} alone {sizes[largest]}), "
            f"but the file has {size}"
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
            f"{path}: refused: it contains a bytearray, which can have any length: save only its state dict"
        )


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint in one step.

    Raises:
        OSError: if the file cannot be written.
    """
    # On a full disk, torch.save to a file raises a RuntimeError that does not name the reason.
    archive = io.BytesIO()
    torch.save(content, archive)
    with atomic_file(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def _checked_archive(file: BinaryIO, path: Path, size: int) -> list[io.BytesIO]:
    """Return the pickles of a zip archive, after checking that it has the form that torch.save writes."""
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
        declared = sum(record.file_size for record in records)
        if declared > size:
            raise CheckpointError(f"{path}: refused: its records declare {declared} bytes, but it has {size}")
        pickles = [record for record in records if record.filename.endswith(".pkl")]
        if any(record.file_size > MAX_PICKLE_BYTES for record in pickles):
            raise CheckpointError(
                f"{path}: refused: its description of the tensors has over {MAX_PICKLE_BYTES >> 20} MiB: "
                "save only its state dict"
            )
        return [io.BytesIO(archive.read(record)) for record in pickles]


def _ends_with_directory(file: BinaryIO, size: int, directory: int) -> bool:
    """Check that the archive ends with the directory that `zipfile` found.

    Otherwise PyTorch, whose zip reader is another one, could read a directory that was not checked here.
    """
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
    """Yield the globals that a file's pickles refer to, as ``module name``."""
    for _ in range(pickles):
        if stream.tell() == len(stream.getbuffer()):
            return
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                yield str(argument)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
