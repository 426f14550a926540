"""An engine of the PyTorch backend: a stage's weights as safetensors, with the configuration as metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ccr_deploy.backends.runner import TensorSpec
from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.errors import EngineError
from ccr_deploy.models.chain import build_network
from ccr_deploy.models.config import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from ccr_deploy.backends.base import Weights
    from ccr_deploy.core.stages import Stage


@dataclass(frozen=True)
class StageNetwork:
    """The network of a stage with its weights, on the CPU, and the configuration that it was built from."""

    network: nn.Module
    stage: Stage
    model: ModelConfig
    preprocessing: Preprocessing

    @property
    def inputs(self) -> tuple[TensorSpec]:
        """The input of the stage's engines: images, or packed codes for a classifier."""
        if self.stage == "classifier":
            return (TensorSpec("code", "uint8", (None, self.model.code_bytes)),)
        return (TensorSpec("image", "uint8", (None, self.model.image_height, self.model.image_width, 3)),)


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


def read_engine(path: Path) -> StageNetwork:
    """Read an engine.

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
    return StageNetwork(network.eval(), stage, model, preprocessing)
