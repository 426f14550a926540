"""The payload: the bytes sent over the network. Needs only NumPy and the standard library.

All numbers are little-endian::

    offset  bytes  field
    0       4      magic, the ASCII letters CCRP
    4       2      format version, 1
    6       8      contract id, as raw bytes
    14      2      image height in pixels
    16      2      image width in pixels
    18      4      length of the code in bytes, n
    22      n      the packed code
    22 + n  4      CRC-32 (as in zlib) of all bytes before it
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
"""File name extension of payload files."""

MAGIC = b"CCRP"
VERSION = 1
_HEADER = struct.Struct("<4sH8sHHI")
_CRC_BYTES = 4
_UINT8 = np.dtype(np.uint8)
OVERHEAD_BYTES = _HEADER.size + _CRC_BYTES
"""Size of header and CRC: what a payload has in addition to its code."""


@dataclass(frozen=True)
class PayloadHeader:
    """The header of a payload: the part of a contract that is needed to write and read payloads."""

    contract_id: str
    image_height: int
    image_width: int
    code_bytes: int


class PayloadWriter:
    """Makes payloads from codes of one contract.

    The header and its CRC are computed once. Right after an engine has run, the processor's caches hold none
    of this code, so that each further step would take as long as the CRC.
    """

    def __init__(self, contract: CodeContract | PayloadHeader) -> None:
        self._code_bytes = contract.code_bytes
        self._single_shape = (1, contract.code_bytes)
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
        """Return one payload for each packed code of a batch ``uint8 [N, bytes]``.

        Raises:
            PayloadError: if the codes have another length or type than the contract's.
        """
        if codes.shape == self._single_shape and codes.dtype is _UINT8 and codes.strides[1] == 1:
            # Fast path for batch 1, as on a camera: the code is read from the engine's memory without a copy.
            crc = crc32(codes, self._header_crc).to_bytes(_CRC_BYTES, "little")  # type: ignore[arg-type]
            return [b"".join((self._header, codes, crc))]  # type: ignore[arg-type] # arrays are buffers
        size, header, header_crc = self._code_bytes, self._header, self._header_crc
        # NumPy has one object for this dtype, and comparing identity is faster than comparing equality.
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
    """Return the payload of one packed code ``uint8 [bytes]``; for many codes use a `PayloadWriter`.

    Raises:
        PayloadError: if the code has another length or type than the contract's.
    """
    return PayloadWriter(contract).payloads(code[None])[0]


def decode_payload(payload: bytes, contract: CodeContract | PayloadHeader) -> npt.NDArray[np.uint8]:
    """Return the packed code ``uint8 [bytes]`` of a payload, after checking that it has this contract.

    Raises:
        PayloadError: if it is not a payload, is damaged, or has another contract.
    """
    header, code = read_payload(payload)
    if header.contract_id != contract.contract_id:
        raise PayloadError(
            f"contract mismatch: payload {header.contract_id}, bundle {contract.contract_id}: "
            "use the bundle that it was encoded with"
        )
    expected = (contract.image_height, contract.image_width, contract.code_bytes)
    if (header.image_height, header.image_width, header.code_bytes) != expected:
        raise PayloadError(
            f"the header has {header.image_height}x{header.image_width} pixels and {header.code_bytes} code "
            f"bytes, the contract {contract.image_height}x{contract.image_width} and {contract.code_bytes}"
        )
    return code


def read_payload(payload: bytes) -> tuple[PayloadHeader, npt.NDArray[np.uint8]]:
    """Return the header and the packed code ``uint8 [bytes]`` of a payload of any contract.

    Raises:
        PayloadError: if it is not a payload or is damaged.
    """
    if payload[:4] != MAGIC:
        raise PayloadError("not a payload: it does not begin with CCRP")
    if len(payload) < OVERHEAD_BYTES:
        raise PayloadError(f"truncated: {len(payload)} bytes, header and CRC alone take {OVERHEAD_BYTES}")
    _, version, contract_id, height, width, length = _HEADER.unpack_from(payload)
    if version != VERSION:
        raise PayloadError(f"format version {version} is not supported, expected {VERSION}")
    # Before the CRC, whose position depends on the length.
    if len(payload) != OVERHEAD_BYTES + length:
        raise PayloadError(f"{len(payload)} bytes, but its header says {OVERHEAD_BYTES + length}")
    if int.from_bytes(payload[-_CRC_BYTES:], "little") != crc32(payload[:-_CRC_BYTES]):
        raise PayloadError("damaged: CRC-32 mismatch")
    header = PayloadHeader(contract_id.hex(), height, width, length)
    # A read-only view of the payload: no copy is made.
    return header, np.frombuffer(payload, np.uint8, length, _HEADER.size)
