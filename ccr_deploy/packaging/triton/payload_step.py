"""Triton's step that decodes payloads to codes; a copy of this file is the model ``payload``.

It runs in Triton's Python backend, which has only NumPy. Beside it are copies of this package's modules
`payload` and `errors`, and a ``contract.json`` with the header of a payload. So Triton rejects exactly the
payloads that the library rejects, with the same messages.

Input ``payload``: BYTES [N, 1]. Output ``code``: uint8 [N, bytes].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

CONTRACT_FILE = "contract.json"


class TritonPythonModel:
    """The model class of Triton's Python backend, which requires this name and these methods."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002
        """Read the contract, and test the step with an encoded payload.

        Raises:
            PayloadError: if the copied modules cannot decode what they encoded.
        """
        folder = Path(__file__).parent
        sys.path.insert(0, str(folder))  # the copies, not an installed ccr-deploy
        import triton_python_backend_utils as triton

        from ccr_deploy.codec.payload import PayloadHeader, decode_payload, encode_payload
        from ccr_deploy.errors import PayloadError

        fields = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
        self._contract = PayloadHeader(**fields)
        self._triton, self._error, self._decode = triton, PayloadError, decode_payload
        zeros = np.zeros(self._contract.code_bytes, np.uint8)
        decode_payload(encode_payload(zeros, self._contract), self._contract)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response per request, codes or an error: an invalid payload fails its own request only."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:  # noqa: ANN401 -- the library has no types
        triton = self._triton
        try:
            codes = [self._decode(payload, self._contract) for payload in self._payloads(request)]
        except self._error as error:
            refusal = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse(error=refusal)
        return triton.InferenceResponse([triton.Tensor("code", np.stack(codes))])

    def _payloads(self, request: Any) -> list[bytes]:  # noqa: ANN401
        """Return a request's payloads, at least one.

        Raises:
            PayloadError: if the tensor is missing or has another shape or type.
        """
        tensor = self._triton.get_input_tensor_by_name(request, "payload")
        found = np.empty(0) if tensor is None else tensor.as_numpy()
        payloads: list[Any] = found.ravel().tolist()
        whole = len(payloads) > 0 and found.shape == (len(payloads), 1)
        if not whole or not all(isinstance(payload, bytes) for payload in payloads):
            what = "none" if tensor is None else f"{found.dtype} {list(found.shape)}"
            raise self._error(f"input payload: expected BYTES [N, 1] with N of at least 1, found {what}")
        return payloads
