"""A training recipe: the model and both steps' settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import DecoderConfig, ModelConfig


@dataclass(frozen=True)
class Phase:
    """One step of the training.

    During the last `settling` share of the steps the encoder no longer learns and its bits are
    production's instead of drawn ones, so that the classifier fits the codes that it will get.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    settling: float = 0.0


@dataclass(frozen=True)
class TrainingRecipe:
    """How one model is trained: the model, the compressor's decoder, and both steps."""

    model: ModelConfig
    preprocessing: Preprocessing
    decoder: DecoderConfig
    pretraining: Phase
    training: Phase
    batch: int
    seed: int = 0
