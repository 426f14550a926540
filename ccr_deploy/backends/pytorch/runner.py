"""One stage in PyTorch with an engine's inputs and outputs: the reference.

The encoder runs iteration by iteration, as in training, eagerly or with `torch.compile`. What does not depend
on the iteration runs once per image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ccr_deploy.backends.device_timer import timed_on_device
from ccr_deploy.backends.runner import Arrays, Outputs, Runner
from ccr_deploy.codec.contract import pack_code, unpack_code
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.encoder import RecurrentEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import nn

    from ccr_deploy.backends.pytorch.engine_file import StageNetwork
    from ccr_deploy.backends.pytorch.options import PyTorchOptions
    from ccr_deploy.codec.contract import Preprocessing


class PyTorchRunner(Runner):
    """One stage of a chain, as a PyTorch network."""

    def __init__(self, engine: StageNetwork, options: PyTorchOptions) -> None:
        self._device = torch.device(options.device)
        self._network: nn.Module | None = engine.network.to(self._device)
        if options.compile_mode:
            engine.network.compile(mode=options.compile_mode)
        self.stage = engine.stage
        self.inputs = engine.inputs
        self._model = engine.model
        self._preprocessing = engine.preprocessing

    @property
    def device_memory_mib(self) -> float | None:
        """The largest amount of GPU memory that PyTorch has reserved, in MiB; None on a CPU."""
        return torch.cuda.max_memory_reserved() / 2**20 if self._device.type == "cuda" else None

    def pre_binarization(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the pre-binarization activations of images.

        Args:
            image: ``uint8 [N, H, W, 3]``.

        Returns:
            ``float32 [N, C, h, w]``. A bit is 1 if its activation is >= 0.
        """
        assert isinstance(self._network, RecurrentEncoder)
        with torch.inference_mode():
            activations = self._network.pre_binarization(self._normalised(image), self._model.iterations)
            return np.asarray(activations.cpu().numpy(), np.float32)

    def codes_of_iterations(
        self, image: npt.NDArray[np.uint8], iterations: int
    ) -> list[npt.NDArray[np.uint8]]:
        """Return the codes ``uint8 [N, bytes]`` of images ``uint8 [N, H, W, 3]`` for each T up to one."""
        assert isinstance(self._network, RecurrentEncoder)
        with torch.inference_mode():
            each = self._network.each_pre_binarization(self._normalised(image), iterations)
            return [pack_code(activations.cpu().numpy()) for activations in each]

    def codes_normalised_by(
        self, image: npt.NDArray[np.uint8], preprocessing: Preprocessing
    ) -> npt.NDArray[np.uint8]:
        """Return the codes ``uint8 [N, bytes]`` of images ``uint8 [N, H, W, 3]`` in another normalisation."""
        assert isinstance(self._network, RecurrentEncoder)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
        with torch.inference_mode():
            normalised = normalise(pixels, preprocessing)
            activations = self._network.pre_binarization(normalised, self._model.iterations)
            return pack_code(activations.cpu().numpy())

    def on_device(self, feeds: Arrays) -> Callable[[], None] | None:
        """Copy one batch of inputs to the GPU, and return a function that runs the network and waits."""
        if self._device.type != "cuda":
            return None
        inputs = self._to_device(feeds)

        def run() -> None:
            with torch.inference_mode(), timed_on_device(self.device_timer, self._stream):
                self._output(inputs)
            torch.cuda.synchronize(self._device)

        return run

    def _run(self, feeds: Arrays) -> Outputs:
        with torch.inference_mode(), timed_on_device(self.device_timer, self._stream):
            output = self._computed(feeds)
        return {"code": pack_code(output)} if self.stage == "encoder" else {"logits": output}

    def _computed(self, feeds: Arrays) -> npt.NDArray[np.float32]:
        """Return the network's output for a batch: unpacked codes, or logits."""
        return np.asarray(self._output(self._to_device(feeds)).cpu().numpy(), np.float32)

    def _to_device(self, feeds: Arrays) -> torch.Tensor:
        """Return a batch on the device: images, or codes, which are unpacked on the host."""
        if self.stage == "classifier":
            code = unpack_code(feeds["code"].astype(np.uint8, copy=False), self._model.code_shape)
            return torch.from_numpy(code).to(self._device)
        return torch.from_numpy(np.ascontiguousarray(feeds["image"])).to(self._device)

    def _output(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the network's output for a batch on the device."""
        assert self._network is not None
        if self.stage == "classifier":
            output = self._network(inputs)
        elif self.stage == "encoder":
            output = self._network(normalise(inputs, self._preprocessing), self._model.iterations)
        else:
            output = self._network(normalise(inputs, self._preprocessing))
        assert isinstance(output, torch.Tensor)
        return output

    def _close(self) -> None:
        self._network = None

    @property
    def _stream(self) -> int:
        """The CUDA stream of the network, which only a device timer uses."""
        return torch.cuda.current_stream().cuda_stream if self.device_timer else 0

    def _normalised(self, image: npt.NDArray[np.generic]) -> torch.Tensor:
        return normalise(torch.from_numpy(np.ascontiguousarray(image)).to(self._device), self._preprocessing)
