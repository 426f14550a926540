"""Remove the device code of other GPUs from a wheel's libraries, so that the kit for one GPU is smaller.

ONNX Runtime's CUDA provider is compiled for every supported compute capability: for one of them, a fraction
of its size remains. A changed wheel is for tests and measurements on that GPU, not for distribution.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FATBIN = 0xBA55ED50
"""The magic number of a fat binary, as in `fatbinary_section.h` of the CUDA toolkit."""
_FATBIN_HEADER = struct.Struct("<IHHQ")  # magic number, version, size of this header, size of the entries
_ENTRY_HEADER = struct.Struct("<HHIQIIHHI")  # kind, version, size of this header, size, …, SM version
_CUBIN = 2
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")  # of 64-bit ELF: name, type, flags, address, offset, size, …
_SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")


def keep_compute_capability(wheel: Path, capability: str) -> None:
    """Zero the device code of every other compute capability in a wheel's libraries; PTX too.

    Libraries without device code for it are left as they are.

    Args:
        wheel: the wheel, which is replaced.
        capability: the compute capability, such as ``"9.0"``.
    """
    smaller = wheel.with_suffix(".smaller")
    with ZipFile(wheel) as old, ZipFile(smaller, "w", ZIP_DEFLATED) as new:
        rows = []
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                record = entry
                continue
            if ".so" in entry.filename and content.startswith(b"\x7fELF"):
                content = only_device_code_of(content, capability)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{entry.filename},sha256={digest},{len(content)}\n")
            new.writestr(entry, content, ZIP_DEFLATED)
        new.writestr(record, "".join([*rows, f"{record.filename},,\n"]))
    smaller.replace(wheel)


def only_device_code_of(library: bytes, capability: str) -> bytes:
    """Return a library with zeros instead of the device code of other compute capabilities.

    Args:
        library: the content of a 64-bit ELF file.
        capability: the compute capability, such as ``"9.0"``.
    """
    sm = int(capability.replace(".", ""))
    codes = [code for start, end in _fatbin_sections(library) for code in _device_codes(library, start, end)]
    if (_CUBIN, sm) not in {(kind, version) for kind, version, _, _ in codes}:
        return library
    changed = bytearray(library)
    for kind, version, start, end in codes:
        if (kind, version) != (_CUBIN, sm):
            changed[start:end] = bytes(end - start)
    return bytes(changed)


def _fatbin_sections(library: bytes) -> Iterator[tuple[int, int]]:
    """Return start and end of the sections that hold fat binaries."""
    (table,) = struct.unpack_from("<Q", library, 0x28)
    _, count, names_index = struct.unpack_from("<HHH", library, 0x3A)
    headers = [
        _SECTION_HEADER.unpack_from(library, table + index * _SECTION_HEADER.size) for index in range(count)
    ]
    if not headers:
        return
    names = headers[names_index][4]
    for name, _, _, _, offset, size, *_ in headers:
        start = names + name
        if library[start : library.index(b"\0", start)] in _SECTIONS:
            yield offset, offset + size


def _device_codes(library: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Return kind, SM version, start and end of every device code in a section of fat binaries."""
    position = start
    while position + _FATBIN_HEADER.size <= end:
        magic, _, header, size = _FATBIN_HEADER.unpack_from(library, position)
        if magic != _FATBIN:
            position += 8  # fat binaries begin at multiples of 8
            continue
        entry, position = position + header, position + header + size
        while entry < position:
            kind, _, entry_header, entry_size, _, _, _, _, sm = _ENTRY_HEADER.unpack_from(library, entry)
            if not entry_header:
                break
            yield kind, sm, entry + entry_header, entry + entry_header + entry_size
            entry += entry_header + entry_size
