"""The networks compute what their docstrings describe."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.models.binarizer import Binarizer, sign, stochastic_sign
from ccr_deploy.models.chain import BaselineChain, CcrChain, normalise, residual_loop
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.conv_lstm import ConvLstmCell
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.resnet import SamplingLayers, WholeResNet18

SMALL = EncoderConfig(stem_channels=6, cell_channels=(4, 10, 12), code_channels=16)
WIDTHS = (8, 12, 16, 20)


@pytest.fixture(autouse=True)
def _seeded_on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for tiny models, more threads only cost synchronisation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Give batch norms random parameters: untrained ones are nearly the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.2)
    return model.eval()


# Binarizer


def test_the_sign_of_zero_is_plus_one():
    assert sign(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]


def test_the_sign_is_minus_one_only_below_zero():
    assert sign(torch.tensor([-2.0, -1e-30, 1e-30, 2.0])).tolist() == [-1.0, -1.0, 1.0, 1.0]


def test_the_stochastic_signs_expectation_is_the_value():
    values = torch.tensor([-1.0, -0.9, -0.3, 0.0, 0.5, 1.0])
    mean = stochastic_sign(values.expand(20_000, -1)).mean(dim=0)
    torch.testing.assert_close(mean, values, atol=0.03, rtol=0)


def test_the_stochastic_sign_is_exactly_plus_or_minus_one():
    drawn = stochastic_sign(torch.rand(1000) * 2 - 1)
    assert torch.equal(drawn.abs(), torch.ones(1000))
    assert 0 < (drawn > 0).sum() < 1000


def test_the_stochastic_sign_of_nan_is_nan():
    assert stochastic_sign(torch.tensor([0.5, torch.nan])).isnan().tolist() == [False, True]


def test_the_stochastic_signs_gradient_passes_straight_through():
    values = torch.tensor([-0.7, 0.0, 0.2], requires_grad=True)
    upstream = torch.tensor([1.0, -2.0, 3.0])
    stochastic_sign(values).backward(upstream)
    assert torch.equal(values.grad, upstream)


def test_the_binarizer_takes_the_sign_in_evaluation():
    binarizer = Binarizer(4, 8).eval()
    features = torch.randn(2, 4, 3, 3)
    assert torch.equal(binarizer(features), sign(binarizer.conv(features)))


def test_the_binarizer_draws_at_random_in_training():
    binarizer = Binarizer(4, 8).train()
    features = torch.randn(2, 4, 3, 3)
    assert not torch.equal(binarizer(features), binarizer(features))


def test_the_binarizer_draws_from_the_source_that_it_is_given():
    binarizer = Binarizer(4, 8).train()
    features = torch.randn(2, 4, 3, 3)
    probability = (1 + torch.tanh(binarizer.conv(features))) / 2
    binarizer.draw = lambda like: torch.full_like(like, 0.4)
    assert torch.equal(binarizer(features), torch.where(probability > 0.4, 1.0, -1.0))


def test_the_source_of_draws_is_not_in_the_state_dict_and_survives_copies():
    binarizer = Binarizer(4, 8).train()
    binarizer.draw = torch.zeros_like
    assert list(binarizer.state_dict()) == ["conv.weight"]
    for copied in (copy.deepcopy(binarizer), pickle.loads(pickle.dumps(binarizer))):
        assert torch.equal(copied(torch.randn(2, 4, 3, 3)), torch.ones(2, 8, 3, 3))


def binarizer_with_activations(*activations: float) -> tuple[Binarizer, torch.Tensor]:
    """Return a binarizer in training, and features that give it these activations in 100,000 positions."""
    binarizer = Binarizer(len(activations), len(activations)).train()
    nn.init.dirac_(binarizer.conv.weight)
    return binarizer, torch.tensor(activations).view(1, -1, 1, 1).expand(1, -1, 1000, 100)


def test_mixed_precision_keeps_the_probabilities_of_the_binarizer():
    binarizer, features = binarizer_with_activations(-3.5, -3.0, 0.5, 3.0, 3.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert binarizer.conv(features).dtype == torch.bfloat16
        drawn = binarizer(features)
    assert torch.equal(drawn.abs(), torch.ones_like(drawn))
    found, expected = (drawn > 0).double().mean(dim=(0, 2, 3)), (1 + features[0, :, 0, 0].double().tanh()) / 2
    deviation = (expected * (1 - expected) / 100_000).sqrt()
    assert ((found - expected).abs() < 5 * deviation).all()


def test_mixed_precision_keeps_the_gradient_of_saturated_bits():
    binarizer, features = binarizer_with_activations(-3.5, 0.5, 3.5)
    features = features.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        binarizer(features).sum().backward()
    expected = 1 - features.detach().tanh() ** 2
    torch.testing.assert_close(features.grad, expected, rtol=0.01, atol=0)  # gradients are in bfloat16


# ConvLSTM


def test_a_step_without_a_state_equals_a_step_from_a_zero_state():
    cell = ConvLstmCell(3, 5, stride=2)
    x = torch.randn(2, 3, 8, 6)
    zero = torch.zeros(2, 5, 4, 3)
    for found, expected in zip(cell(x, None), cell(x, (zero, zero)), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_step_computes_the_lstms_equations():
    cell = ConvLstmCell(3, 5, stride=1)
    x, hidden, state = torch.randn(1, 3, 4, 4), torch.randn(1, 5, 4, 4), torch.randn(1, 5, 4, 4)
    gates = cell.input_conv(x) + cell.hidden_conv(hidden)
    i, f, g, o = gates[:, :5], gates[:, 5:10], gates[:, 10:15], gates[:, 15:]
    expected_state = f.sigmoid() * state + i.sigmoid() * g.tanh()
    new_hidden, new_state = cell(x, (hidden, state))
    torch.testing.assert_close(new_state, expected_state)
    torch.testing.assert_close(new_hidden, o.sigmoid() * expected_state.tanh())


def test_a_cell_has_no_biases():
    assert {name for name, _ in ConvLstmCell(3, 5, stride=2).named_parameters()} == {
        "input_conv.weight",
        "hidden_conv.weight",
    }


# Encoder


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_code_has_a_sixteenth_of_the_image_size_in_plus_or_minus_one(iterations):
    code = RecurrentEncoder(SMALL).eval()(torch.randn(2, 3, 32, 48), iterations)
    assert code.shape == (2, 16, 2, 3)
    assert set(code.unique().tolist()) == {-1.0, 1.0}


def test_the_code_is_that_of_the_last_iteration():
    encoder = RecurrentEncoder(SMALL).eval()
    image = torch.randn(1, 3, 32, 48)
    states: list = [None, None, None]
    for _ in range(3):
        features, states = encoder.step(image, states)
    assert torch.equal(encoder(image, 3), encoder.binarizer(features))


def plain_loop(encoder: RecurrentEncoder, image: torch.Tensor, iterations: int) -> list[torch.Tensor]:
    """Return the features of each iteration, with all work repeated in each of them."""
    states: list = [None] * 3
    found = []
    for _ in range(iterations):
        features, states = encoder.step(image, states)
        found.append(features)
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_features_have_the_bits_of_a_loop_that_repeats_all_work(layout, dtype):
    encoder = RecurrentEncoder(SMALL).to(dtype).to(memory_format=layout)
    image = torch.randn(2, 3, 32, 48, dtype=dtype).contiguous(memory_format=layout)
    expected = plain_loop(encoder, image, 4)
    for found, features in zip(encoder.each_features(image, 4), expected, strict=True):
        assert torch.equal(found, features)
    assert torch.equal(encoder.pre_binarization(image, 4), encoder.binarizer.conv(expected[-1]))


def test_work_that_does_not_depend_on_the_iteration_is_done_once():
    encoder = RecurrentEncoder(SMALL)
    runs: Counter = Counter()
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: runs.update([name]))
    encoder(torch.randn(1, 3, 32, 32), 4)
    assert runs == {
        "stem": 1,
        "cells.0.input_conv": 1,
        "cells.0.hidden_conv": 3,
        "cells.1.input_conv": 4,
        "cells.1.hidden_conv": 3,
        "cells.2.input_conv": 4,
        "cells.2.hidden_conv": 3,
        "binarizer.conv": 1,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_those_of_a_loop_that_repeats_all_work(dtype, tolerance):
    encoder = RecurrentEncoder(SMALL).to(dtype).train()
    image = torch.randn(3, 3, 32, 48, dtype=dtype, requires_grad=True)
    inputs = [image, *encoder.parameters()]
    weights = torch.randn(3, 16, 2, 3, dtype=dtype)
    torch.manual_seed(1)
    expected = torch.autograd.grad(
        (encoder.binarizer(plain_loop(encoder, image, 5)[-1]) * weights).sum(), inputs
    )
    torch.manual_seed(1)
    found = torch.autograd.grad((encoder(image, 5) * weights).sum(), inputs)
    for gradient, other in zip(found, expected, strict=True):
        assert other.abs().max() > 0
        assert (gradient - other).norm() <= tolerance * other.norm()


def test_the_encoder_in_training_compiles_without_a_graph_break():
    """With the backend that traces forward and backward, and computes both with PyTorch's own kernels."""
    encoder = RecurrentEncoder(SMALL).train()
    image = torch.randn(2, 3, 32, 48)
    compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
    encoder.binarizer.draw = lambda like: torch.full_like(like, 0.4)
    assert torch.equal(compiled(image, 3), encoder(image, 3))


def test_every_iteration_changes_the_features():
    encoder = RecurrentEncoder(SMALL).eval()
    image = torch.randn(1, 3, 32, 48)
    first, second = encoder.features(image, 1), encoder.features(image, 2)
    assert (first - second).abs().max() > 1e-4


def test_an_images_code_does_not_depend_on_its_batch():
    encoder = RecurrentEncoder(SMALL).eval()
    images = torch.randn(3, 3, 32, 48)
    alone = torch.cat([encoder.features(images[index : index + 1], 2) for index in range(3)])
    torch.testing.assert_close(encoder.features(images, 2), alone)


# Chains


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("cut", ["layer1", "layer2", "layer3"])
def test_an_odd_sized_chain_gives_a_logit_for_every_class(cut, iterations):
    config = ModelConfig(
        image_height=32,
        image_width=48,
        iterations=iterations,
        encoder=SMALL,
        classifier=ClassifierConfig(cut=cut, classes=7, stage_channels=WIDTHS),
    )
    logits = CcrChain(config).eval()(torch.randn(2, 3, 32, 48))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_a_chain_applies_its_classifier_to_its_encoders_code():
    config = ModelConfig(
        image_height=32,
        image_width=32,
        iterations=2,
        encoder=SMALL,
        classifier=ClassifierConfig(cut="layer2", classes=3, stage_channels=WIDTHS),
    )
    chain = with_random_statistics(CcrChain(config))
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(chain(image), chain.classifier(chain.encoder(image, 2)))


@pytest.mark.parametrize(("upsamplings", "times"), [(0, 1), (1, 2), (2, 4)])
def test_the_sampling_layers_give_the_residual_stages_resolution(upsamplings, times):
    assert SamplingLayers(16, 12, upsamplings).eval()(torch.ones(1, 16, 2, 3)).shape == (
        1,
        12,
        2 * times,
        3 * times,
    )


def small_baseline(iterations: int) -> BaselineChain:
    config = ModelConfig(
        image_height=32,
        image_width=48,
        iterations=iterations,
        encoder=SMALL,
        decoder=DecoderConfig(cell_channels=(12, 10, 8, 6)),
        classifier=ClassifierConfig(cut=None, classes=7, stage_channels=WIDTHS),
    )
    return with_random_statistics(BaselineChain(config, Preprocessing(resize_to_cover=(32, 48))))


@pytest.mark.parametrize("iterations", [1, 5])
def test_an_odd_sized_baseline_gives_a_logit_for_every_class(iterations):
    assert small_baseline(iterations)(torch.rand(2, 3, 32, 48) - 0.5).shape == (2, 7)


def test_a_decoded_part_has_the_image_size_and_is_within_half():
    decoder = Decoder(DecoderConfig(cell_channels=(12, 10, 8, 6)), 16)
    decoder.output.weight.data.mul_(1e5)
    part, _ = decoder.step(sign(torch.randn(2, 16, 2, 3)), [None] * 4)
    assert part.shape == (2, 3, 32, 48)
    assert 0.4 < part.abs().max() <= 0.5


def test_each_iteration_encodes_the_previous_residual():
    chain = small_baseline(2)
    image = torch.rand(1, 3, 32, 48) - 0.5
    features, encoder_states = chain.encoder.step(image, [None] * 3)
    part, decoder_states = chain.decoder.step(chain.encoder.binarizer(features), [None] * 4)
    first = image - part
    features, _ = chain.encoder.step(first, encoder_states)
    part, _ = chain.decoder.step(chain.encoder.binarizer(features), decoder_states)
    residuals = residual_loop(chain.encoder, chain.decoder, image, 2)
    assert len(residuals) == 2
    torch.testing.assert_close(residuals[0], first)
    torch.testing.assert_close(residuals[1], first - part)


def test_restored_image_plus_last_residual_is_the_image():
    chain = small_baseline(3)
    image = torch.rand(1, 3, 32, 48) - 0.5
    left = residual_loop(chain.encoder, chain.decoder, image, 3)[-1]
    torch.testing.assert_close(chain.restore(image) + left, image)


def test_the_baselines_classifier_gets_pixels_from_0_to_1():
    chain = small_baseline(1)
    image = torch.rand(1, 3, 32, 48) - 0.5
    torch.testing.assert_close(chain(image), chain.classifier(chain.restore(image) + 0.5))


# ResNet-18


def test_torchvisions_weights_load_strictly_and_give_the_same_logits():
    theirs = with_random_statistics(resnet18(weights=None))
    ours = WholeResNet18(ClassifierConfig(cut=None, classes=1000))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.eval()
    image = torch.rand(2, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs((image - mean) / deviation), atol=1e-4, rtol=1e-4)


# Normalisation


def test_normalisation_maps_black_and_white_to_minus_and_plus_half():
    image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, 3)
    normalised = normalise(image, Preprocessing(resize_to_cover=(1, 2)))
    assert normalised.shape == (1, 3, 1, 2)
    torch.testing.assert_close(normalised, torch.tensor([-0.5, 0.5]).expand(1, 3, 1, 2))


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    preprocessing = Preprocessing(resize_to_cover=(1, 1), mean=(0.2, 0.4, 0.6), std=(1.0, 0.5, 0.25))
    image = torch.tensor([51, 255, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = torch.tensor([0.0, 1.2, -2.4])
    torch.testing.assert_close(normalise(image, preprocessing).flatten(), expected)


def test_normalisation_keeps_rows_and_columns():
    image = torch.zeros(1, 4, 6, 3, dtype=torch.uint8)
    image[0, 1, 5, 2] = 255
    normalised = normalise(image, Preprocessing(resize_to_cover=(4, 6)))
    assert normalised.argmax().item() == (2 * 4 + 1) * 6 + 5
