"""The paper's four models and the demo's, by name."""

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
    # Trains in a minute or two on two CPU cores.
    "demo": ModelConfig(
        image_height=48,
        image_width=48,
        iterations=3,
        encoder=EncoderConfig(stem_channels=16, cell_channels=(16, 32, 64)),
        classifier=ClassifierConfig(cut="layer3", classes=16, stage_channels=(16, 32, 64, 128)),
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset called `name`.

    Raises:
        WrongUsageError: there is none of that name.
    """
    if name not in PRESETS:
        raise WrongUsageError(f"there is no preset {name!r}: {choose_from(name, PRESETS)}")
    return PRESETS[name]


def default_preprocessing(config: ModelConfig) -> Preprocessing:
    """ImageNet's habit: resize to 8/7 of the image's size (256 for 224), then crop the centre.

    Images below 64 pixels are used as they are cut: the demo's are 48 x 48.
    """
    rows, columns = config.image_height, config.image_width
    if min(rows, columns) >= 64:
        rows, columns = round(rows * 8 / 7), round(columns * 8 / 7)
    return Preprocessing(resize_to_cover=(rows, columns))
