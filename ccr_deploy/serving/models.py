"""The two models of the server: encoder (images to codes) and classifier (payloads or codes to labels)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.serving import kserve_sdk as kserve
from ccr_deploy.serving.refusals import REFUSALS
from ccr_deploy.serving.tensors import TensorType, read_bytes, read_payloads, write_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.serving.engine_queue import EngineQueue
    from ccr_deploy.serving.limits import Limits

    Tensors = dict[str, npt.NDArray[np.generic]]


class EngineModel(kserve.InferenceModel):
    """A model of the protocol on top of an engine's queue. It computes nothing itself and never blocks.

    The SDK's class `Model` also times the steps before and after the engine, which are empty here.
    """

    inputs: tuple[TensorType, ...]
    """The possible inputs; a request has exactly one of them."""
    outputs: tuple[TensorType, ...]

    def __init__(self, manifest: Manifest, queue: EngineQueue, limits: Limits) -> None:
        super().__init__(queue.name)
        self._contract = manifest.contract
        self._code = TensorType("code", "UINT8", (manifest.contract.code_bytes,))
        self._queue = queue
        self._max_batch = limits.max_batch
        self._seconds = kserve.PREDICT_HIST_TIME.labels(queue.name)

    async def healthy(self) -> bool:
        """Return whether the engine is warmed up."""
        return self._queue.ready

    def load(self) -> bool:
        """Refuse to load: KServe's SDK calls this if a request names a model that is not ready.

        The SDK's own method marks the model as ready.

        Raises:
            ModelNotReady: always.
        """
        raise kserve.ModelNotReady(self.name)

    def get_input_types(self) -> list[dict[str, object]]:
        """Return the metadata of the inputs."""
        return [tensor.metadata() for tensor in self.inputs]

    def get_output_types(self) -> list[dict[str, object]]:
        """Return the metadata of the outputs."""
        return [tensor.metadata() for tensor in self.outputs]

    async def __call__(
        self,
        body: kserve.InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002
        verb: object = None,  # noqa: ARG002
    ) -> tuple[kserve.InferResponse, dict[str, str]]:
        """Return the response to one request, with the requested outputs, or all, and its headers.

        Args:
            body: the parsed request, as KServe's SDK names it.
            headers: the request's headers; not used.
            verb: the kind of request; not used.

        Raises:
            InvalidInput: if the request does not match the model's inputs and outputs.
            ModelNotReady: if the engine is not warmed up.
            BusyError: if too many images are waiting.
            InferenceError: if the engine fails.
        """
        try:
            with self._seconds.time():
                wanted = self._wanted(body)
                tensors = await self._answer(self._rows(body), wanted)
        except Exception as error:
            if type(error) in REFUSALS:
                raise
            # Any other error would reach the HTTP server, which closes the connection after the response.
            raise kserve.InferenceError(f"{self.name}: unexpected {type(error).__name__}: {error}") from error
        arrays = [tensors[tensor.name] for tensor in wanted]
        outputs = [
            kserve.InferOutput(tensor.name, list(array.shape), tensor.datatype)
            for tensor, array in zip(wanted, arrays, strict=True)
        ]
        contents = [write_content(array) for array in arrays]
        return kserve.InferResponse(body.id or "", self.name, outputs, raw_outputs=contents), {}

    @cached_property
    def _known_inputs(self) -> dict[str, TensorType]:
        return {tensor.name: tensor for tensor in self.inputs}

    @cached_property
    def _known_outputs(self) -> dict[str, TensorType]:
        return {tensor.name: tensor for tensor in self.outputs}

    def _wanted(self, request: kserve.InferRequest) -> list[TensorType]:
        known = self._known_outputs
        names = [output.name for output in request.request_outputs or []] or list(known)
        for name in names:
            if name not in known:
                raise kserve.InvalidInput(
                    f"{self.name}: no output {name!r:.80}, its outputs are {', '.join(known)}"
                )
        return [known[name] for name in dict.fromkeys(names)]

    def _rows(self, request: kserve.InferRequest) -> npt.NDArray[np.uint8]:
        """Return the engine's input, read from the request's only tensor."""
        known = self._known_inputs
        if len(request.inputs) != 1 or request.inputs[0].name not in known:
            found = ", ".join(tensor.name for tensor in request.inputs) or "none"
            raise kserve.InvalidInput(
                f"{self.name}: expected one input, {' or '.join(known)}, found {found:.80}"
            )
        (tensor,) = request.inputs
        return self._read(tensor, known[tensor.name])

    def _read(self, tensor: kserve.InferInput, expected: TensorType) -> npt.NDArray[np.uint8]:
        expected.check(tensor, self._max_batch)
        return read_bytes(tensor)

    async def _answer(self, rows: npt.NDArray[np.uint8], wanted: Sequence[TensorType]) -> Tensors:  # noqa: ARG002
        """Return at least the wanted outputs for the rows of one request."""
        return await self._queue.infer(rows)


class EncoderModel(EngineModel):
    """``image`` UINT8 [N, H, W, 3] to ``code`` UINT8 [N, bytes]."""

    def __init__(self, manifest: Manifest, queue: EngineQueue, limits: Limits) -> None:
        super().__init__(manifest, queue, limits)
        self.inputs = (TensorType("image", "UINT8", manifest.input_shapes("encoder")["image"]),)
        self.outputs = (self._code,)


class ClassifierModel(EngineModel):
    """``payload`` BYTES [N] or ``code`` UINT8 [N, bytes] to ``logits`` FP32 [N, classes], ``label`` BYTES.

    Magic, length, CRC and contract of a payload are checked before its code is classified.
    """

    def __init__(self, manifest: Manifest, queue: EngineQueue, limits: Limits) -> None:
        super().__init__(manifest, queue, limits)
        classes = manifest.model.classifier.classes
        self._names = [manifest.class_name(label).encode() for label in range(classes)]
        self.inputs = (TensorType("payload", "BYTES"), self._code)
        self._label = TensorType("label", "BYTES")
        self.outputs = (TensorType("logits", "FP32", (classes,)), self._label)

    def _read(self, tensor: kserve.InferInput, expected: TensorType) -> npt.NDArray[np.uint8]:
        if expected is self._code:
            return super()._read(tensor, expected)
        if tensor.shape[1:] == [1]:  # [N, 1] is how Triton shapes a batch of single elements
            tensor.shape = tensor.shape[:1]
        expected.check(tensor, self._max_batch)
        return read_payloads(tensor, self._contract)

    async def _answer(self, rows: npt.NDArray[np.uint8], wanted: Sequence[TensorType]) -> Tensors:
        logits = (await super()._answer(rows, wanted))["logits"].astype(np.float32, copy=False)
        if self._label not in wanted:
            return {"logits": logits}
        labels = np.array([self._names[label] for label in logits.argmax(axis=1)], dtype=np.object_)
        return {"logits": logits, "label": labels}
