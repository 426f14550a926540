"""Training recipes: the model and the settings of both steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.models.config import DecoderConfig, ModelConfig


@dataclass(frozen=True)
class Phase:
    """The settings of one training step.

    During the last `frozen_share` (0..1) of its optimizer steps, the encoder is frozen and its bits are no
    longer drawn at random, so that the classifier adapts to the codes of production.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    frozen_share: float = 0.0


@dataclass(frozen=True)
class TrainingRecipe:
    """The training of one model.

    Attributes:
        model: the configuration of the model.
        preprocessing: how its images are preprocessed.
        decoder: the decoder of step 1, which is discarded after it.
        pretraining: settings of step 1, the compressor.
        training: settings of step 2, the recogniser.
        batch: images per batch.
        seed: seed of weights, crops and binarizer.
    """

    model: ModelConfig
    preprocessing: Preprocessing
    decoder: DecoderConfig
    pretraining: Phase
    training: Phase
    batch: int
    seed: int = 0
