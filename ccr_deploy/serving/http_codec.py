"""Parse and write the protocol's HTTP bodies: JSON, or JSON followed by binary tensors.

The parser of KServe's SDK is not used: it converts a binary tensor to a list of Python numbers (10 ms for a
224x224 image) and rejects bytes that are not UTF-8, such as payloads. Its writer ignores
`binary_data_output` if a request names outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson

from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import convert
from ccr_deploy.serving.kserve_sdk import InferInput, InferRequest, InvalidInput, RequestedOutput
from ccr_deploy.serving.tensors import binary_content

if TYPE_CHECKING:
    from ccr_deploy.serving.kserve_sdk import InferResponse

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values, as in ASGI."""

JSON_LENGTH_HEADER = b"inference-header-content-length"
"""The header with the length of the JSON part, in bytes, if binary tensors follow it."""
_MAX_DIGITS = 19
"""Digits of a length: Python refuses to convert thousands of them."""


class _Part(msgspec.Struct, frozen=True):
    """An object in a request's JSON. Fields of unknown protocol extensions are ignored."""


class _Parameters(_Part, frozen=True):
    binary_data: bool | None = None
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    binary_data_output: bool = False


class _Input(_Part, frozen=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = _Parameters()
    data: list[Any] | None = None


class _Output(_Part, frozen=True):
    name: str
    parameters: _Parameters = _Parameters()


class _Request(_Part, frozen=True):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] = []
    parameters: _Parameters = _Parameters()


def read_request(body: bytes, json_length: bytes | None, model_name: str) -> InferRequest:
    """Parse the body of an inference request.

    Args:
        body: the whole body.
        json_length: the value of the header `JSON_LENGTH_HEADER`; None if the whole body is JSON.
        model_name: the model's name, from the URL.

    Raises:
        InvalidInput: if the body is not an inference request, or a binary tensor's length is wrong.
    """
    length = len(body) if json_length is None else _length(json_length, len(body))
    try:
        request = convert(_Request, orjson.loads(body[:length]), nan=True)  # orjson rejects NaN itself
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    except FieldError as error:
        raise InvalidInput(f"the body is not an inference request: {error}") from error
    inputs = [InferInput(one.name, one.shape, one.datatype, one.data) for one in request.inputs]
    return InferRequest(
        model_name=model_name,
        infer_inputs=inputs,
        request_id=request.id,
        raw_inputs=_binary_tensors(request, body, length),
        parameters={"binary_data_output": request.parameters.binary_data_output},
        request_outputs=[_requested(output, request) for output in request.outputs] or None,
    )


def write_response(response: InferResponse, request: InferRequest) -> tuple[bytes, Headers]:
    """Return a response's body and headers; outputs are binary if the request asks for that."""
    in_binary = {output.name: output.binary_data for output in request.request_outputs or []}
    binary: list[bytes] = []
    outputs = []
    for output in response.outputs:
        written = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if in_binary.get(output.name, request.use_binary_outputs):
            content = binary_content(output)
            assert content is not None
            binary.append(content)
            written["parameters"] = {"binary_data_size": len(content)}
        else:
            values = output.as_numpy().ravel().tolist()
            is_text = output.datatype == "BYTES"
            written["data"] = [str(value, "utf-8") for value in values] if is_text else values
        outputs.append(written)
    answer = {"model_name": response.model_name, "outputs": outputs}
    json_part = orjson.dumps({"id": response.id, **answer} if response.id else answer)
    headers = [(b"content-type", b"application/octet-stream" if binary else b"application/json")]
    if binary:
        headers.append((JSON_LENGTH_HEADER, b"%d" % len(json_part)))
    content = b"".join([json_part, *binary])
    return content, [*headers, (b"content-length", b"%d" % len(content))]


def _length(header: bytes, body_length: int) -> int:
    if not header.isdigit() or len(header) > _MAX_DIGITS or int(header) > body_length:
        raise InvalidInput(
            f"Inference-Header-Content-Length: expected a number up to {body_length}, the length of the "
            f"body, found {header.decode('latin-1'):.20}"
        )
    return int(header)


def _binary_tensors(request: _Request, body: bytes, start: int) -> list[bytes | None]:
    """Return the binary tensor of each input, None for inputs with JSON data."""
    found: list[bytes | None] = []
    for tensor in request.inputs:
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise InvalidInput(f"input {tensor.name:.80}: set either data or the parameter binary_data_size")
        found.append(None if size is None else body[start : start + size])
        start += size or 0
    if start != len(body):
        raise InvalidInput(f"the body has {len(body)} bytes, but its JSON and binary tensors have {start}")
    return found


def _requested(output: _Output, request: _Request) -> RequestedOutput:
    own, of_all = output.parameters.binary_data, request.parameters.binary_data_output
    return RequestedOutput(output.name, {"binary_data": of_all if own is None else own})
