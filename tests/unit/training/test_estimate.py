"""The estimated cost of trainings: work as PyTorch counts it, hours computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ccr_deploy.backends.roofline import find_limits
from ccr_deploy.models.chain import BaselineChain, CcrChain, residual_loop
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.presets import default_preprocessing, preset
from training.estimate import TrainingCost, TrainingPhase, TrainingRate, cost_table, training_macs

ENCODER = EncoderConfig(stem_channels=6, cell_channels=(4, 10, 12), code_channels=16)
DECODER = DecoderConfig(cell_channels=(12, 10, 8, 6))
WIDTHS = (8, 12, 16, 20)
CCR = ModelConfig(
    image_height=32,
    image_width=64,
    iterations=3,
    encoder=ENCODER,
    classifier=ClassifierConfig(cut="layer2", classes=7, stage_channels=WIDTHS),
)
BASELINE = ModelConfig(
    image_height=32,
    image_width=64,
    iterations=3,
    encoder=ENCODER,
    decoder=DECODER,
    classifier=ClassifierConfig(cut=None, classes=7, stage_channels=WIDTHS),
)


def loss(phase: TrainingPhase, image: torch.Tensor) -> torch.Tensor:
    if phase == "pretrain":
        encoder, decoder = RecurrentEncoder(ENCODER), Decoder(DECODER, ENCODER.code_channels)
        return torch.stack([part.abs().mean() for part in residual_loop(encoder, decoder, image, 3)]).mean()
    chain: nn.Module = CcrChain(CCR)
    if phase == "baseline":
        chain = BaselineChain(BASELINE, default_preprocessing(BASELINE))
    return chain(image).square().mean()


@pytest.mark.parametrize("phase", ["pretrain", "finetune", "baseline"])
def test_the_work_is_what_pytorch_counts_in_a_training_step(phase: TrainingPhase) -> None:
    batch = 2
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), counter:
        value = loss(phase, torch.zeros(batch, 3, 32, 64))
        forward = counter.get_total_flops() / 2 / batch
        value.backward()
    both = counter.get_total_flops() / 2 / batch
    estimated = training_macs(phase, BASELINE if phase == "baseline" else CCR, DECODER)
    assert estimated == 3 * forward
    # The first convolution has no gradient of its input.
    assert 0.95 * estimated < both < estimated


def test_pretraining_does_not_depend_on_the_classifier() -> None:
    assert training_macs("pretrain", CCR, DECODER) == training_macs("pretrain", BASELINE)


def test_the_decoder_dominates_the_pretraining_of_the_paper_s_models() -> None:
    pretrain = training_macs("pretrain", preset("ccr-layer1"), DecoderConfig())
    finetune = training_macs("finetune", preset("ccr-layer1"))
    assert finetune / 3e9 == pytest.approx(7.5 + 1.48, rel=0.01)
    assert pretrain / 3e9 == pytest.approx(9.5 + 8 * 18, rel=0.02)


def test_hours_are_images_times_epochs_by_the_rate() -> None:
    rate = TrainingRate.measured("CPU", images_per_second=50, macs=2_000)
    cost = TrainingCost("tiny", "finetune", macs=2_000, images=3_600, epochs=10)
    assert cost.hours(rate) == pytest.approx(3_600 * 10 / 50 / 3600)
    twice_the_work = TrainingCost("tiny", "pretrain", macs=4_000, images=3_600, epochs=10)
    assert twice_the_work.hours(rate) == pytest.approx(2 * cost.hours(rate))


def test_an_assumed_rate_is_a_share_of_the_peak_and_says_so() -> None:
    h100 = find_limits("h100")
    rate = TrainingRate.assumed(h100, 0.3)
    assert rate.macs_per_second == pytest.approx(0.3 * 989.5e12 / 2)
    assert rate.source.startswith("assumed: 30% of the BF16 peak")
    assert h100.source in rate.source


def test_the_table_has_the_hours_at_every_rate_and_says_that_it_is_an_estimate() -> None:
    costs = [
        TrainingCost("tiny", "pretrain", macs=40_000_000_000, images=7_200, epochs=2),
        TrainingCost("tiny", "finetune", macs=20_000_000_000, images=7_200, epochs=5),
    ]
    rates = [
        TrainingRate.measured("CPU", 2.0, 20_000_000_000),
        TrainingRate("GPU", 4e12, "assumed: by a test"),
    ]
    table = cost_table(costs, rates)
    assert table.columns == ("model", "phase", "GMAC per image", "epochs", "hours, CPU", "hours, GPU")
    assert table.rows == (
        ("tiny", "pretrain", "40.0", "2", "4.00", "0.0400"),
        ("tiny", "finetune", "20.0", "5", "5.00", "0.0500"),
    )
    assert "estimate" in table.title
    for part in ("estimated, not measured", "7200 images", "measured: 2.00 images/s", "assumed: by a test"):
        assert part in table.note
