"""PyTorch from the bundle's weights: the reference that every engine is compared with.

It runs the encoder iteration by iteration, as it was trained, eager or by `torch.compile`. Its engine is the
stage's own weights, with the model's configuration in the file's metadata.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np

from ccr_deploy.backends.base import TensorSpec, check_feeds, thread_count
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.codec.contract import Preprocessing, pack_code, unpack_code
from ccr_deploy.core.processor import processor_name
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.errors import EngineError, MissingExtraError
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.family import parameter_prefix

try:
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file, save
    from torch import nn

    from ccr_deploy.models.chain import build_network, normalise
    from ccr_deploy.models.encoder import RecurrentEncoder
except ImportError as error:
    raise MissingExtraError(error.name or "torch", "export", "the PyTorch reference") from None

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from ccr_deploy.backends.base import Arrays, BuildSource
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.options import PyTorchOptions


class PyTorchBackend:
    """Builds and runs the reference."""

    name = "pytorch"
    suffix = ".safetensors"
    int8_weight_bits: Literal[7, 8] = 8

    def __init__(self, options: PyTorchOptions) -> None:
        self._options = options

    @property
    def version(self) -> str:
        """PyTorch's version."""
        return torch.__version__

    @property
    def device(self) -> str:
        """The processor or GPU.

        Raises:
            EngineError: the options ask for a GPU that PyTorch does not see.
        """
        if self._options.device == "cpu":
            return processor_name()
        self.check_runs_here()
        return str(torch.cuda.get_device_name(0))

    def check_builds_here(self) -> None:
        """Its engines are weights, but named for the device that runs them.

        Raises:
            EngineError: PyTorch does not see the device.
        """
        self.check_runs_here()

    def check_runs_here(self) -> None:
        """Does nothing where PyTorch sees the device.

        Raises:
            EngineError: it does not.
        """
        if self._options.device == "cuda" and not torch.cuda.is_available():
            raise EngineError(f"PyTorch {torch.__version__} sees no GPU here")

    def check_precision(self, precision: EnginePrecision) -> None:
        """FP32 alone.

        Raises:
            EngineError: another precision was asked for.
        """
        if precision != "fp32":
            raise EngineError(f"the PyTorch reference computes in FP32 alone, not in {precision.upper()}")

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """FP32."""
        return ("fp32",)

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Takes the stage's weights out of the bundle's."""
        manifest = source.bundle.manifest
        model, weights, prefix = manifest.model, manifest.weights, parameter_prefix(source.stage)
        if source.stage == "baseline":
            assert manifest.baseline is not None
            model, weights = manifest.baseline.model, manifest.baseline.weights
        tensors = load_file(source.bundle.file(weights))
        stage_tensors = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        metadata = {
            "stage": source.stage,
            "model": to_json(model),
            "preprocessing": to_json(manifest.contract.preprocessing),
        }
        engine.write_bytes(save(stage_tensors, metadata))  # save_file raises no OSError on a full disk
        return BuildFacts()

    def load(self, engine: Path, precision: EnginePrecision) -> PyTorchRunner:  # noqa: ARG002
        """Loads the stage's weights into its network.

        Raises:
            EngineError: the file is not what `build` writes, or PyTorch does not see the device.
        """
        self.check_runs_here()
        torch.set_num_threads(thread_count(self._options.threads))
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self._options.tf32
        try:
            with safe_open(engine, "pt") as file:
                metadata = file.metadata()
            model = convert(ModelConfig, json.loads(metadata["model"]))
            preprocessing = convert(Preprocessing, json.loads(metadata["preprocessing"]))
            stage = metadata["stage"]
            network = build_network(stage, model, preprocessing)
            network.load_state_dict(load_file(engine))
        except (
            SafetensorError,
            KeyError,
            TypeError,
            RuntimeError,
            OSError,
            ValueError,
        ) as error:
            raise EngineError(f"{engine}: not an engine of the PyTorch reference ({error})") from error
        return PyTorchRunner(network.eval(), stage, model, preprocessing, self._options)


class PyTorchRunner:
    """One stage of a chain in PyTorch, with an engine's borders."""

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
        self._stage = stage
        self._model = model
        self._preprocessing = preprocessing
        if stage == "classifier":
            self.inputs = (TensorSpec("code", "uint8", (None, model.code_bytes)),)
        else:
            self.inputs = (TensorSpec("image", "uint8", (None, model.image_height, model.image_width, 3)),)

    @property
    def device_memory_mib(self) -> float | None:
        """The most that PyTorch has reserved of the GPU; None on a CPU."""
        return torch.cuda.max_memory_reserved() / 2**20 if self._device.type == "cuda" else None

    def __enter__(self) -> PyTorchRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._network = None

    def infer(self, feeds: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """The outputs for one batch.

        Raises:
            EngineError: an input does not fit, or the runner was closed.
        """
        if self._network is None:
            raise EngineError("the runner was closed")
        check_feeds(feeds, self.inputs)
        with torch.inference_mode():
            if self._stage == "encoder":
                code = self._network(self._normalised(feeds["image"]), self._model.iterations)
                return {"code": pack_code(code.cpu().numpy())}
            if self._stage == "classifier":
                code = unpack_code(feeds["code"].astype(np.uint8, copy=False), self._model.code_shape)
                return {"logits": self._network(torch.from_numpy(code).to(self._device)).cpu().numpy()}
            return {"logits": self._network(self._normalised(feeds["image"])).cpu().numpy()}

    def values_before_sign(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The pre-binarization activations ``float32 [N, C, h, w]``: how near each bit was to 0."""
        assert isinstance(self._network, RecurrentEncoder)
        with torch.inference_mode():
            activations = self._network.pre_binarization(self._normalised(image), self._model.iterations)
            return np.asarray(activations.cpu().numpy(), np.float32)

    def _normalised(self, image: npt.NDArray[np.generic]) -> torch.Tensor:
        return normalise(torch.from_numpy(np.ascontiguousarray(image)).to(self._device), self._preprocessing)
