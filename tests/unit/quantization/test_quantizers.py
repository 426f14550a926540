"""The signals that are quantized, and the layers that are proposed for high precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from ccr_deploy.core.stages import NAIVE_SCHEDULE, SCHEDULES
from ccr_deploy.quantization.quantizers import layers, quantizable_layers, quantized_activations
from ccr_deploy.quantization.sensitivity import LayerSensitivity, proposal, ranked, work_shares

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Schedule

SIGNALS = {"normalise", "cell1/hidden_state", "cell2/hidden_state", "cell3/hidden_state"}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_quantizes_the_same_signals(tiny_bundle: Bundle, schedule: Schedule) -> None:
    model = ir.load(tiny_bundle.file(tiny_bundle.graph("encoder", "fp32", schedule).file))
    found = set().union(*quantized_activations(model).values())
    assert layers(model)[0] == "stem"
    if schedule == NAIVE_SCHEDULE:  # its stem, without the first input convolution, has too few channels
        assert found == SIGNALS - {"normalise"}
        assert set(layers(model)) - set(quantizable_layers(model)) == {"stem"}
    else:
        assert found == SIGNALS
        assert layers(model) == quantizable_layers(model)


def test_the_work_shares_of_the_layers_add_up_to_1(tiny_bundle: Bundle) -> None:
    model = ir.load(tiny_bundle.file(tiny_bundle.graph("encoder", "fp32", "iteration-major").file))
    shares = work_shares(model)
    assert list(shares) == quantizable_layers(model)
    assert sum(shares.values()) == pytest.approx(1)
    # Twice the channels in and 4 * 8 / (4 * 6) out, a quarter of the pixels, three iterations each.
    assert shares["cell3/input_conv"] / shares["cell2/input_conv"] == pytest.approx(6 * 32 / (4 * 24) / 4)


def layer(name: str, share: float, flipped: float | None = None, changed: float = 0) -> LayerSensitivity:
    stage = "classifier" if flipped is None else "encoder"
    return LayerSensitivity(stage, name, share, flipped, changed)


def test_the_most_sensitive_layer_comes_first_and_the_encoder_before_the_classifier() -> None:
    order = ranked([layer("c", 1, changed=9), layer("a", 0.5, 0.1), layer("b", 0.5, 0.3)])
    assert [entry.layer for entry in order] == ["b", "a", "c"]


def test_a_sensitive_layer_with_little_work_is_proposed_for_high_precision() -> None:
    small, large = layer("stem", 0.05, 0.3), layer("cell2/input_conv", 0.95, 0.3)
    assert proposal([small, large]) == ("stem",)
    assert proposal([layer("stem", 0.15, 0.3), large]) == ()  # half of the sensitivity for 15 % of the work


def test_a_layer_of_negligible_cost_is_not_proposed() -> None:
    assert proposal([layer("stem", 0.001, 0.05), layer("rest", 0.999, 0.0)]) == ()
    assert proposal([layer("conv1", 0.01, changed=0.9), layer("layer4", 0.99, changed=0)]) == ()
    assert proposal([layer("conv1", 0.01, changed=3), layer("layer4", 0.99, changed=0)]) == ("conv1",)
    assert proposal([layer("a", 0.5, 0.0), layer("b", 0.5, 0.0)]) == ()
    assert proposal([]) == ()
