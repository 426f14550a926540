"""Convert tensors of a request to rows for an engine; check names, types, shapes and contents.

Every check raises KServe's `InvalidInput`, the one error for invalid requests.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.payload import decode_payload
from ccr_deploy.errors import PayloadError
from ccr_deploy.serving.kserve_sdk import InvalidInput

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.serving.kserve_sdk import InferInput, InferOutput


@dataclass(frozen=True)
class TensorType:
    """A model's input or output, as in its metadata; `row_shape` is the shape without the batch."""

    name: str
    datatype: str
    row_shape: tuple[int, ...] = ()

    def metadata(self) -> dict[str, object]:
        """Return the tensor's metadata in the protocol's form, with -1 for the batch."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.row_shape]}

    def check(self, tensor: InferInput, max_batch: int) -> None:
        """Raise InvalidInput if a tensor has another type or shape, or more than `max_batch` rows."""
        shape = list(tensor.shape)
        fits = len(shape) > 0 and shape[1:] == list(self.row_shape) and 1 <= shape[0] <= max_batch
        if tensor.datatype != self.datatype or not fits:
            wanted = ", ".join(["N", *map(str, self.row_shape)])
            raise InvalidInput(
                f"input {self.name}: expected {self.datatype} [{wanted}] with N from 1 to {max_batch}, "
                f"found {tensor.datatype:.20} {shape!s:.80}"
            )


def read_bytes(tensor: InferInput) -> npt.NDArray[np.uint8]:
    """Return the content of a UINT8 tensor, binary or JSON, as an array of the tensor's shape.

    Raises:
        InvalidInput: if the content does not match the shape, or is not integers from 0 to 255.
    """
    raw = binary_content(tensor)
    expected = math.prod(tensor.shape)
    array = np.frombuffer(raw, np.uint8) if raw is not None else _numbers(tensor)
    if array.size != expected:
        raise InvalidInput(f"input {tensor.name}: {array.size} values, but its shape has {expected}")
    return array.reshape(tensor.shape)


def read_payloads(tensor: InferInput, contract: CodeContract) -> npt.NDArray[np.uint8]:
    """Return the codes ``uint8 [N, bytes]`` of a BYTES tensor of payloads; in JSON a payload is base64.

    Raises:
        InvalidInput: if there are not N elements, or an element is not a payload of this contract.
    """
    count = int(tensor.shape[0])
    raw = binary_content(tensor)
    payloads = [_element(item) for item in tensor.data or []] if raw is None else _elements(raw, count)
    if len(payloads) != count:
        raise InvalidInput(f"input {tensor.name}: {len(payloads)} elements, but its shape has {count}")
    try:
        return np.stack([decode_payload(payload, contract) for payload in payloads])
    except PayloadError as error:
        raise InvalidInput(f"input {tensor.name}: {error}") from error


def write_content(array: npt.NDArray[np.generic]) -> bytes:
    """Return the binary content of a tensor; each element of one of bytes is prefixed by its length."""
    if array.dtype.hasobject:
        items: list[bytes] = array.ravel().tolist()
        return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))
    return array.tobytes()


def binary_content(tensor: InferInput | InferOutput) -> bytes | None:
    """Return the bytes of a binary tensor, None for a JSON tensor.

    KServe's SDK keeps them in a private attribute, and its `as_numpy` does not check them.
    """
    return tensor._raw_data


def _numbers(tensor: InferInput) -> npt.NDArray[np.uint8]:
    try:
        array: npt.NDArray[Any] = np.asarray(tensor.data)
    except ValueError:  # nested lists of unequal length, or too deep
        array = np.asarray("")
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() <= 255):
        raise InvalidInput(f"input {tensor.name}: data must be integers from 0 to 255")
    return array.astype(np.uint8)


def _elements(content: bytes, count: int) -> list[bytes]:
    """Split binary content into `count` elements, each prefixed by its length (4 bytes, little-endian)."""
    elements: list[bytes] = []
    offset = 0
    for _ in range(count):
        if offset + 4 > len(content):
            raise InvalidInput(f"the binary content ends within element {len(elements) + 1} of {count}")
        (length,) = struct.unpack_from("<I", content, offset)
        elements.append(content[offset + 4 : offset + 4 + length])
        offset += 4 + length
    if offset != len(content):
        raise InvalidInput(
            f"the binary content has {len(content)} bytes, but its {count} elements have {offset}"
        )
    return elements


def _element(item: object) -> bytes:
    if isinstance(item, bytes):  # gRPC without binary content
        return item
    if not isinstance(item, str):
        raise InvalidInput("a payload in JSON must be a base64 string")
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "a payload in JSON must be a base64 string; this one is not valid base64"
        ) from None
