"""Triton's step from payloads to codes; a copy of this file is the model ``payload``.

It runs in Triton's Python backend, which has NumPy alone, beside copies of this package's own `payload` and
`errors` and a ``contract.json`` with a payload's header: Triton refuses exactly the payloads that the library
refuses, in its words.

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
    """What Triton's Python backend calls, under the names that it calls."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002
        """Reads the contract and tries the step out on a payload of its own.

        Raises:
            PayloadError: the modules beside this file do not read what they wrote.
        """
        folder = Path(__file__).parent
        sys.path.insert(0, str(folder))  # these modules, not those of a ccr-deploy that is installed
        import triton_python_backend_utils as triton

        from ccr_deploy.codec.payload import PayloadHeader, decode_payload, encode_payload
        from ccr_deploy.errors import PayloadError

        fields = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
        self._contract = PayloadHeader(**fields)
        self._triton, self._error, self._decode = triton, PayloadError, decode_payload
        zeros = np.zeros(self._contract.code_bytes, np.uint8)
        decode_payload(encode_payload(zeros, self._contract), self._contract)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, codes or an error; one client's damage is not another's."""
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
            PayloadError: it has no tensor of that name, or one of another shape or type.
        """
        tensor = self._triton.get_input_tensor_by_name(request, "payload")
        found = np.empty(0) if tensor is None else tensor.as_numpy()
        payloads: list[Any] = found.ravel().tolist()
        whole = len(payloads) > 0 and found.shape == (len(payloads), 1)
        if not whole or not all(isinstance(payload, bytes) for payload in payloads):
            what = "none" if tensor is None else f"{found.dtype} {list(found.shape)}"
            raise self._error(f"input payload: expected BYTES [N, 1] with N from 1 on, found {what}")
        return payloads
