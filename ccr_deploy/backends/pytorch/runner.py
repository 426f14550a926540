"""One stage in PyTorch with an engine's inputs and outputs, and the file format of its engine.

The encoder runs iteration by iteration, as in training, eagerly or with `torch.compile`. An engine is a
safetensors file of the stage's weights, with the network's configuration as metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.codec.contract import Preprocessing, pack_code, unpack_code
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.errors import EngineError
from ccr_deploy.models.chain import build_network, normalise
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.encoder import RecurrentEncoder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

    from ccr_deploy.backends.base import Weights
    from ccr_deploy.backends.pytorch.options import PyTorchOptions
    from ccr_deploy.core.stages import Stage


class PyTorchRunner(Runner):
    """One stage of a chain, as a PyTorch network."""

    def __init__(
        self,
        network: nn.Module,
        stage: Stage,
        model: ModelConfig,
        preprocessing: Preprocessing,
        options: PyTorchOptions,
    ) -> None:
        self._device = torch.device(options.device)
        self._network: nn.Module | None = network.to(self._device)
        if options.compile_mode:
            network.compile(mode=options.compile_mode)
        self.stage = stage
        self._model = model
        self._preprocessing = preprocessing
        if stage == "classifier":
            self.inputs = (TensorSpec("code", "uint8", (None, model.code_bytes)),)
        else:
            self.inputs = (TensorSpec("image", "uint8", (None, model.image_height, model.image_width, 3)),)

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

    def _run(self, feeds: Arrays) -> Outputs:
        assert self._network is not None
        with torch.inference_mode():
            if self.stage == "encoder":
                code = self._network(self._normalised(feeds["image"]), self._model.iterations)
                return {"code": pack_code(code.cpu().numpy())}
            if self.stage == "classifier":
                code = unpack_code(feeds["code"].astype(np.uint8, copy=False), self._model.code_shape)
                return {"logits": self._network(torch.from_numpy(code).to(self._device)).cpu().numpy()}
            return {"logits": self._network(self._normalised(feeds["image"])).cpu().numpy()}

    def _close(self) -> None:
        self._network = None

    def _normalised(self, image: npt.NDArray[np.generic]) -> torch.Tensor:
        return normalise(torch.from_numpy(np.ascontiguousarray(image)).to(self._device), self._preprocessing)


def engine_bytes(stage: Stage, weights: Weights) -> bytes:
    """Return the engine of a stage as bytes.

    The caller writes them, because safetensors' `save_file` does not raise an OSError if the disk is full.
    """
    tensors = {
        name.removeprefix(weights.prefix): tensor
        for name, tensor in load_file(weights.path).items()
        if name.startswith(weights.prefix)
    }
    metadata = {
        "stage": stage,
        "model": to_json(weights.model),
        "preprocessing": to_json(weights.preprocessing),
    }
    return save(tensors, metadata)


def load_runner(path: Path, options: PyTorchOptions) -> PyTorchRunner:
    """Load an engine.

    Raises:
        EngineError: if the file is not an engine of the PyTorch reference.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        model = convert(ModelConfig, parse_json(metadata["model"].encode()))
        preprocessing = convert(Preprocessing, parse_json(metadata["preprocessing"].encode()))
        stage = metadata["stage"]
        network = build_network(stage, model, preprocessing)
        network.load_state_dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, RuntimeError, OSError, ValueError) as error:
        raise EngineError(f"{path}: not an engine of the PyTorch reference ({error})") from error
    return PyTorchRunner(network.eval(), stage, model, preprocessing, options)
