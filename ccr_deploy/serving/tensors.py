"""Tensors of a request to rows for an engine: names, types, shapes and contents are checked here.

Every refusal is KServe's `InvalidInput`, the one error for a client's mistake.
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
    """A model's input or output as its metadata tell it; the batch goes in front of `row_shape`."""

    name: str
    datatype: str
    row_shape: tuple[int, ...] = ()

    def metadata(self) -> dict[str, object]:
        """As the protocol writes it: the batch is -1."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.row_shape]}

    def check(self, tensor: InferInput, max_batch: int) -> None:
        """Raises an InvalidInput where a tensor has another type or shape."""
        shape = list(tensor.shape)
        fits = len(shape) > 0 and shape[1:] == list(self.row_shape) and 1 <= shape[0] <= max_batch
        if tensor.datatype != self.datatype or not fits:
            wanted = ", ".join(["N", *map(str, self.row_shape)])
            raise InvalidInput(
                f"input {self.name}: expected {self.datatype} [{wanted}] with N from 1 to {max_batch}, "
                f"found {tensor.datatype:.20} {shape!s:.80}"
            )


def read_bytes(tensor: InferInput) -> npt.NDArray[np.uint8]:
    """The content of a UINT8 tensor, binary or as numbers, in the tensor's shape.

    Raises:
        InvalidInput: its content is not as long as its shape says, or no whole numbers from 0 to 255.
    """
    raw = binary_content(tensor)
    expected = math.prod(tensor.shape)
    array = np.frombuffer(raw, np.uint8) if raw is not None else _numbers(tensor)
    if array.size != expected:
        raise InvalidInput(f"input {tensor.name}: {array.size} values, its shape says {expected}")
    return array.reshape(tensor.shape)


def read_payloads(tensor: InferInput, contract: CodeContract) -> npt.NDArray[np.uint8]:
    """The codes ``uint8 [N, bytes]`` in a BYTES tensor of payloads; in JSON a payload is base64.

    Raises:
        InvalidInput: there are not N elements, or one is no payload that speaks this contract.
    """
    count = int(tensor.shape[0])
    raw = binary_content(tensor)
    payloads = [_element(item) for item in tensor.data or []] if raw is None else _elements(raw, count)
    if len(payloads) != count:
        raise InvalidInput(f"input {tensor.name}: {len(payloads)} elements, its shape says {count}")
    try:
        return np.stack([decode_payload(payload, contract) for payload in payloads])
    except PayloadError as error:
        raise InvalidInput(f"input {tensor.name}: {error}") from error


def binary_content(tensor: InferInput | InferOutput) -> bytes | None:
    """The bytes of a tensor in binary form, else None.

    KServe's SDK keeps them in an attribute that is not public, and its `as_numpy` trusts what they say.
    """
    return tensor._raw_data


def _numbers(tensor: InferInput) -> npt.NDArray[np.uint8]:
    try:
        array: npt.NDArray[Any] = np.asarray(tensor.data)
    except ValueError:  # nested lists of unequal length, or too deep
        array = np.asarray("")
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() <= 255):
        raise InvalidInput(f"input {tensor.name}: its data are not whole numbers from 0 to 255")
    return array.astype(np.uint8)


def _elements(content: bytes, count: int) -> list[bytes]:
    """The first `count` elements, each behind its length in four little-endian bytes."""
    elements: list[bytes] = []
    offset = 0
    for _ in range(count):
        if offset + 4 > len(content):
            raise InvalidInput(f"the binary content ends within the {len(elements) + 1}. of {count} elements")
        (length,) = struct.unpack_from("<I", content, offset)
        elements.append(content[offset + 4 : offset + 4 + length])
        offset += 4 + length
    if offset != len(content):
        raise InvalidInput(f"{len(content)} bytes of binary content, {count} elements take {offset}")
    return elements


def _element(item: object) -> bytes:
    if isinstance(item, bytes):  # gRPC without binary content
        return item
    if not isinstance(item, str):
        raise InvalidInput("a payload in JSON is text, its bytes in base64")
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("a payload in JSON is its bytes in base64; this text is not") from None
