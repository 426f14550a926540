"""Add an encoder's pre-binarization activations to the outputs of its ONNX file.

The file is edited in the wire format of Protocol Buffers, because a device has ONNX Runtime but not the
package onnx. The constants are field numbers of ``onnx.proto``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAPH = 7  # of a ModelProto
_NODE, _OUTPUT = 1, 12  # of a GraphProto
_INPUT, _OP_TYPE = 1, 4  # of a NodeProto
_NAME = 1  # of a ValueInfoProto
_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


def expose_activations(model: bytes) -> bytes:
    """Add the pre-binarization activations to an encoder's outputs; return a classifier unchanged.

    Args:
        model: the content of an ONNX file.
    """
    for graph in _fields(model, _GRAPH):
        for node in _fields(graph, _NODE):
            if b"GreaterOrEqual" in _fields(node, _OP_TYPE):  # a bit is 1 if the activation is >= 0
                activations = next(_fields(node, _INPUT))
                output = _field(_OUTPUT, _field(_NAME, activations))
                # A parser merges a message field that occurs twice, so that appending adds to the graph. ONNX
                # Runtime infers the type of an output that has only a name.
                return model + _field(_GRAPH, output)
    return model


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the contents of the length-delimited fields with a field number."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            _, position = _varint(message, position)
            continue
        if kind == _LENGTH_DELIMITED:
            size, position = _varint(message, position)
        else:
            size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        if kind == _LENGTH_DELIMITED and key >> 3 == number:
            yield message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a base-128 integer, least significant group first; return it and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    size, length = len(content), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | _LENGTH_DELIMITED, *length, size]) + content
