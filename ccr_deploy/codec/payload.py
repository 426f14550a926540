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
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from ccr_deploy.errors import PayloadError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.codec.contract import CodeContract

SUFFIX = ".ccr"
"""What the names of payload files end with."""

MAGIC = b"CCRP"
VERSION = 1
_HEADER = struct.Struct("<4sH8sHHI")
_CRC_BYTES = 4
_UINT8 = np.dtype(np.uint8)
OVERHEAD_BYTES = _HEADER.size + _CRC_BYTES
"""What a payload adds to its code."""


@dataclass(frozen=True)
class PayloadHeader:
    """What a payload says about its code; all of a contract that making and reading payloads needs."""

    contract_id: str
    image_height: int
    image_width: int
    code_bytes: int


class PayloadWriter:
    """Makes payloads of one contract's codes.

    What all of them share is computed once: right after an engine's run, when nothing of this is in the
    processor's caches, every further step would take as long as the CRC.
    """

    def __init__(self, contract: CodeContract | PayloadHeader) -> None:
        self._code_bytes = contract.code_bytes
        self._lone = (1, contract.code_bytes)
        self._header = _HEADER.pack(
            MAGIC,
            VERSION,
            bytes.fromhex(contract.contract_id),
            contract.image_height,
            contract.image_width,
            contract.code_bytes,
        )
        self._header_crc = crc32(self._header)

    def payloads(self, codes: npt.NDArray[np.uint8]) -> list[bytes]:
        """Wraps a batch of packed codes ``uint8 [N, bytes]`` of the contract's length.

        Raises:
            PayloadError: the codes have another length or type.
        """
        if codes.shape == self._lone and codes.dtype is _UINT8 and codes.strides[1] == 1:
            # As a camera sends them: the code goes from the engine's memory into CRC and payload as it is.
            crc = crc32(codes, self._header_crc).to_bytes(_CRC_BYTES, "little")  # type: ignore[arg-type]
            return [b"".join((self._header, codes, crc))]  # type: ignore[arg-type] # NumPy's arrays are buffers
        size, header, header_crc = self._code_bytes, self._header, self._header_crc
        # NumPy has one object for the type, whose identity is found sooner than its equality.
        if (codes.dtype is not _UINT8 and codes.dtype != _UINT8) or codes.shape[1:] != (size,):
            raise PayloadError(
                f"a code of this contract is uint8 [{size}], found {codes.dtype} {list(codes.shape[1:])}"
            )
        content = codes.tobytes()
        payloads = []
        for start in range(0, len(content), size):
            code = content[start : start + size]
            crc = crc32(code, header_crc).to_bytes(_CRC_BYTES, "little")
            payloads.append(b"".join((header, code, crc)))
        return payloads


def encode_payload(code: npt.NDArray[np.uint8], contract: CodeContract | PayloadHeader) -> bytes:
    """The payload of one packed code ``uint8 [bytes]``; for many of them use a `PayloadWriter`.

    Raises:
        PayloadError: the code has another length or type.
    """
    return PayloadWriter(contract).payloads(code[None])[0]


def decode_payload(payload: bytes, contract: CodeContract | PayloadHeader) -> npt.NDArray[np.uint8]:
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
    if int.from_bytes(payload[-_CRC_BYTES:], "little") != crc32(payload[:-_CRC_BYTES]):
        raise PayloadError("damaged: its CRC-32 does not fit its bytes")
    header = PayloadHeader(contract_id.hex(), height, width, length)
    return header, np.frombuffer(payload, np.uint8, length, _HEADER.size)
