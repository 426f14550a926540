"""The presets: the four models of the paper, and the demo's small model."""

from __future__ import annotations

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.config import (
    ClassifierConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
)

PAPER_PRESETS = ("ccr-baseline", "ccr-layer1", "ccr-layer2", "ccr-layer3")
"""The rows of the paper's Table 1."""

PRESETS: dict[str, ModelConfig] = {
    "ccr-baseline": ModelConfig(decoder=DecoderConfig(), classifier=ClassifierConfig(cut=None, classes=1000)),
    "ccr-layer1": ModelConfig(classifier=ClassifierConfig(cut="layer1")),
    "ccr-layer2": ModelConfig(classifier=ClassifierConfig(cut="layer2")),
    "ccr-layer3": ModelConfig(classifier=ClassifierConfig(cut="layer3")),
    # Small enough to train in a minute or two on two CPU cores.
    "demo": ModelConfig(
        image_height=48,
        image_width=48,
        iterations=3,
        encoder=EncoderConfig(stem_channels=16, cell_channels=(16, 32, 64)),
        classifier=ClassifierConfig(cut="layer3", classes=16, stage_channels=(16, 32, 64, 128)),
    ),
}


def preset(name: str) -> ModelConfig:
    """Return the preset with a name.

    Raises:
        WrongUsageError: if there is none.
    """
    if name not in PRESETS:
        raise WrongUsageError(f"unknown preset {name!r}: {choose_from(name, PRESETS)}")
    return PRESETS[name]


def default_preprocessing(config: ModelConfig) -> Preprocessing:
    """Return the preprocessing that is common for ImageNet: resize to 8/7 of the image size, crop the centre.

    That is 256 for 224 pixels. Below 64 pixels the resized size is the image size: the demo's images are
    crops of 48x48 already.
    """
    rows, columns = config.image_height, config.image_width
    if min(rows, columns) >= 64:
        rows, columns = round(rows * 8 / 7), round(columns * 8 / 7)
    return Preprocessing(resize_to_cover=(rows, columns))
