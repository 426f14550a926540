"""The payload: the bytes that cross the network. Needs NumPy and the standard library alone.

All numbers are little-endian::

    offset  bytes  what
    0       4      magic, the ASCII letters CCRP
    4       2      format version, 1
    6       8      contract id, as raw bytes
    14      2      image height in pixels
    16      2      image width in pixels
    18      4      length of the code in bytes, n
    22      n      the packed code
    22 + n  4      CRC-32 (zlib's) over everything before
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.errors import PayloadError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.contract import CodeContract

MAGIC = b"CCRP"
VERSION = 1
_HEADER = struct.Struct("<4sH8sHHI")
_CRC = struct.Struct("<I")
OVERHEAD_BYTES = _HEADER.size + _CRC.size
"""What a payload adds to its code."""


@dataclass(frozen=True)
class PayloadHeader:
    """What a payload says about its code."""

    contract_id: str
    image_height: int
    image_width: int
    code_bytes: int


def encode_payload(code: npt.NDArray[np.uint8], contract: CodeContract) -> bytes:
    """Wraps one packed code ``uint8 [bytes]`` of the contract's length.

    Raises:
        PayloadError: the code has another length or type.
    """
    if code.dtype != np.uint8 or code.shape != (contract.code_bytes,):
        raise PayloadError(
            f"a code of this contract is uint8 [{contract.code_bytes}], found {code.dtype} {list(code.shape)}"
        )
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        bytes.fromhex(contract.contract_id),
        contract.image_height,
        contract.image_width,
        contract.code_bytes,
    )
    body = header + code.tobytes()
    return body + _CRC.pack(zlib.crc32(body))


def decode_payload(payload: bytes, contract: CodeContract) -> npt.NDArray[np.uint8]:
    """The packed code ``uint8 [bytes]`` of a payload that speaks this contract's language.

    Raises:
        PayloadError: it is no payload, is damaged, or belongs to another contract.
    """
    header, code = read_payload(payload)
    if header.contract_id != contract.contract_id:
        raise PayloadError(
            f"it speaks contract {header.contract_id}, this model understands {contract.contract_id}"
        )
    expected = (contract.image_height, contract.image_width, contract.code_bytes)
    if (header.image_height, header.image_width, header.code_bytes) != expected:
        raise PayloadError(
            f"{header.image_height}x{header.image_width} pixels and {header.code_bytes} code bytes, the "
            f"contract says {contract.image_height}x{contract.image_width} and {contract.code_bytes}"
        )
    return code


def read_payload(payload: bytes) -> tuple[PayloadHeader, npt.NDArray[np.uint8]]:
    """The header and the packed code ``uint8 [bytes]`` of a payload of any contract.

    Raises:
        PayloadError: it is no payload, or is damaged.
    """
    if payload[:4] != MAGIC:
        raise PayloadError("not a payload: it does not begin with CCRP")
    if len(payload) < OVERHEAD_BYTES:
        raise PayloadError(f"truncated: {len(payload)} bytes, the header and CRC alone take {OVERHEAD_BYTES}")
    _, version, contract_id, height, width, length = _HEADER.unpack_from(payload)
    if version != VERSION:
        raise PayloadError(f"format version {version}, this program reads {VERSION}")
    if len(payload) != OVERHEAD_BYTES + length:
        raise PayloadError(f"{len(payload)} bytes, its header announces {OVERHEAD_BYTES + length}")
    (crc,) = _CRC.unpack_from(payload, len(payload) - _CRC.size)
    if crc != zlib.crc32(payload[: -_CRC.size]):
        raise PayloadError("damaged: its CRC-32 does not fit its bytes")
    header = PayloadHeader(contract_id.hex(), height, width, length)
    return header, np.frombuffer(payload, np.uint8, length, _HEADER.size)
