"""Configurations refuse invalid values; presets have the paper's parameter counts."""

import json

import pytest
import torch

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import convert, to_builtins, to_json
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.chain import BaselineChain, CcrChain
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.presets import PAPER_PRESETS, PRESETS, default_preprocessing, preset

CUT = ClassifierConfig(cut="layer3")


def refusal(**fields) -> str:
    with pytest.raises(FieldError) as caught:
        convert(ModelConfig, {"classifier": to_builtins(CUT), **to_builtins(fields)})
    return str(caught.value)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def empty(name: str) -> CcrChain | BaselineChain:
    config = preset(name)
    with torch.device("meta"):
        return (
            BaselineChain(config, default_preprocessing(config)) if config.is_baseline else CcrChain(config)
        )


@pytest.mark.parametrize("side", ["height", "width"])
@pytest.mark.parametrize("pixels", [17, 100, 225])
def test_a_side_that_is_not_divisible_by_16_is_refused(side, pixels):
    message = refusal(**{f"image_{side}": pixels})
    assert f"the image {side} is {pixels}, which is not divisible by 16" in message


@pytest.mark.parametrize("pixels", [0, 15, -16])
def test_an_image_below_16_pixels_is_refused(pixels):
    assert "image_height" in refusal(image_height=pixels)


@pytest.mark.parametrize("iterations", [0, -1, 33, 2.5, "many"])
def test_iterations_outside_1_to_32_are_refused(iterations):
    assert "iterations" in refusal(iterations=iterations)


@pytest.mark.parametrize("iterations", [1, 32])
def test_1_and_32_iterations_are_allowed(iterations):
    assert ModelConfig(classifier=CUT, iterations=iterations).iterations == iterations


@pytest.mark.parametrize("channels", [12, 33])
def test_code_channels_that_are_not_divisible_by_8_are_refused(channels):
    with pytest.raises(FieldError) as caught:
        convert(EncoderConfig, {"code_channels": channels})
    assert f"code_channels is {channels}, which is not divisible by 8" in str(caught.value)


@pytest.mark.parametrize("channels", [0, 4, -8])
def test_fewer_than_8_code_channels_are_refused(channels):
    with pytest.raises(FieldError, match="code_channels"):
        convert(EncoderConfig, {"code_channels": channels})


@pytest.mark.parametrize("cells", [(32, 192), (32, 192, 384, 512), (32, 0, 384)])
def test_an_encoder_has_three_cells_with_channels(cells):
    with pytest.raises(FieldError, match="cell_channels"):
        convert(EncoderConfig, {"cell_channels": cells})


def test_an_unknown_field_is_refused_and_named():
    assert "iteration" in refusal(iteration=8)


def test_an_unknown_cut_is_refused():
    with pytest.raises(FieldError, match="cut"):
        convert(ClassifierConfig, {"cut": "layer4"})


def test_a_decoder_with_a_truncated_classifier_is_refused():
    assert "a baseline has a decoder and a whole ResNet-18" in refusal(decoder=DecoderConfig())


def test_a_whole_classifier_without_a_decoder_is_refused():
    message = refusal(classifier=ClassifierConfig(cut=None))
    assert "a CCR chain has a cut and no decoder" in message


def test_one_class_is_refused():
    with pytest.raises(FieldError, match="classes"):
        convert(ClassifierConfig, {"cut": "layer1", "classes": 1})


def test_a_configuration_is_immutable():
    with pytest.raises(AttributeError, match="immutable"):
        PRESETS["demo"].iterations = 4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_round_trips_through_json(name):
    assert convert(ModelConfig, json.loads(to_json(preset(name)))) == preset(name)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("ccr-layer1", 14_867_364),
        ("ccr-layer2", 14_581_796),
        ("ccr-layer3", 13_404_452),
        ("ccr-baseline", 20_293_224),
    ],
)
def test_a_paper_preset_has_exactly_table_1s_parameters(name, total):
    assert name in PAPER_PRESETS
    assert parameters(empty(name)) == total


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_a_paper_presets_encoder_has_3704512_parameters(name):
    assert parameters(empty(name).encoder) == 3_704_512


def test_the_baselines_decoder_has_4899200_parameters():
    assert parameters(empty("ccr-baseline").decoder) == 4_899_200


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_a_paper_preset_runs_8_iterations_on_224_pixels(name):
    config = preset(name)
    assert (config.iterations, config.image_height, config.image_width) == (8, 224, 224)


def test_a_paper_presets_code_takes_784_bytes():
    assert preset("ccr-layer1").code_bytes == 784


def test_an_unknown_preset_is_refused_and_the_known_ones_listed():
    with pytest.raises(
        WrongUsageError,
        match=r"unknown preset 'layer1': did you mean ccr-layer1.*choose from .*ccr-layer1.*demo",
    ):
        preset("layer1")


def test_large_images_are_resized_to_eight_sevenths_before_the_crop():
    assert default_preprocessing(preset("ccr-layer1")) == Preprocessing(resize_to_cover=(256, 256))


def test_small_images_are_not_enlarged_before_the_crop():
    assert default_preprocessing(preset("demo")) == Preprocessing(resize_to_cover=(48, 48))


def test_the_summary_of_a_model_names_its_image_size_its_iterations_and_its_cut():
    config = ModelConfig(image_height=32, image_width=64, iterations=3, classifier=CUT)
    assert config.summary == "32x64, T=3, cut layer3"
    assert preset("ccr-baseline").summary == "224x224, T=8"
