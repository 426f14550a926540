"""Faults of a graph are recognised beside the graph that it should equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.backends.int8_weights import int8_weights
from ccr_deploy.verification.graph_faults import (
    CLIPPED_PERCENT,
    ClippedRange,
    GraphParts,
    explain_graph,
    explain_int8_engine,
    explain_ranges,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "stem/weight": RANDOM.normal(size=(8, 3, 3, 3)).astype(np.float32),
    "cell1/input_conv/weight": RANDOM.normal(size=(16, 8, 3, 3)).astype(np.float32),
    "binarizer/weight": RANDOM.normal(size=(8, 4, 1, 1)).astype(np.float32),
    "normalise/offset": np.full((3, 1, 1), 127.5, np.float32),
}
HEALTHY = GraphParts(WEIGHTS, 3)


def changed(name: str, values: np.ndarray) -> GraphParts:
    return GraphParts({**WEIGHTS, name: values}, 3)


def quantized(weights: dict[str, np.ndarray]) -> GraphParts:
    """Return the weights after rounding to INT8, with their scales."""
    steps = {
        name: np.abs(array).max(axis=(1, 2, 3), keepdims=True) / 127
        for name, array in weights.items()
        if array.ndim == 4
    }
    rounded = {name: np.rint(weights[name] / step) * step for name, step in steps.items()}
    return GraphParts({**weights, **rounded}, 3, steps)


def cause_of(found: GraphParts, expected: GraphParts = HEALTHY) -> str | None:
    explanation = explain_graph(found, expected)
    return explanation.cause if explanation else None


def test_equal_graphs_and_fp16_weights_have_no_fault() -> None:
    low = GraphParts({name: array.astype(np.float16) for name, array in WEIGHTS.items()}, 3)
    assert cause_of(HEALTHY) is None
    assert cause_of(low) is None


def test_quantized_weights_have_no_fault_and_are_not_equal_without_their_scales() -> None:
    low = quantized(WEIGHTS)
    assert cause_of(low) is None
    assert cause_of(GraphParts(low.weights, 3)) == "other-weights"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (lambda weight: np.concatenate([2 * weight[:1], weight[1:]]), "changed-weight"),
        (lambda weight: np.flip(weight, 0), "swapped-channels"),
        (lambda weight: np.flip(weight, 1), "swapped-channels"),
        (lambda weight: np.concatenate([0 * weight[:1], weight[1:]]), "dead-channel"),
    ],
)
def test_faults_of_quantized_weights_are_named(fault: Callable[[np.ndarray], np.ndarray], cause: str) -> None:
    name = "cell1/input_conv/weight"
    healthy = quantized(WEIGHTS)
    faulty = quantized({**WEIGHTS, name: fault(WEIGHTS[name]) + 1e-9})  # no scale is 0
    assert (
        cause_of(GraphParts({**healthy.weights, name: faulty.weights[name].round(6)}, 3, faulty.steps))
        == cause
    )


def test_one_changed_weight_is_named() -> None:
    weight = WEIGHTS["cell1/input_conv/weight"].copy()
    weight[2, 3, 1, 1] += 0.5
    explanation = explain_graph(changed("cell1/input_conv/weight", weight), HEALTHY)
    assert explanation
    assert explanation.cause == "changed-weight"
    assert "cell1/input_conv/weight: 1 of 1152 values, by up to 0.5" in explanation.evidence


@pytest.mark.parametrize(("axis", "kind"), [(0, "output"), (1, "input")])
def test_swapped_channels_of_an_inner_layer_are_named(axis: int, kind: str) -> None:
    weight = np.flip(WEIGHTS["cell1/input_conv/weight"], axis)
    explanation = explain_graph(changed("cell1/input_conv/weight", weight), HEALTHY)
    assert explanation
    assert explanation.cause == "swapped-channels"
    assert f"{kind} channels" in explanation.evidence


def test_dead_channel_of_an_inner_layer_is_named() -> None:
    weight = WEIGHTS["stem/weight"].copy()
    weight[5] = 0
    explanation = explain_graph(changed("stem/weight", weight), HEALTHY)
    assert explanation
    assert explanation.cause == "dead-channel"
    assert "[5]" in explanation.evidence


def test_other_graphs_are_named() -> None:
    others = {name: -array for name, array in WEIGHTS.items()}
    assert cause_of(GraphParts(others, 3)) == "other-weights"
    assert cause_of(GraphParts(WEIGHTS, 2)) == "iterations"
    assert cause_of(changed("normalise/offset", np.zeros((3, 1, 1), np.float32))) == "normalisation"
    assert cause_of(changed("stem/weight", np.ones((4, 3, 3, 3), np.float32))) == "other-weights"


def test_residual_stages_tell_the_cut() -> None:
    one, other = (GraphParts({f"{name}/0/conv1/weight": np.ones(1)}, None) for name in ("layer3", "layer4"))
    assert cause_of(one, other) == "other-cut"


def test_most_clipped_tensor_is_named_with_the_ranges_of_graph_and_table() -> None:
    healthy = ClippedRange("stem", 1.0, 1.0, CLIPPED_PERCENT / 2)
    clipped = ClippedRange("cell2/t1/hidden_state", 0.1, 0.8, 40.0)
    assert explain_ranges([healthy]) is None
    explanation = explain_ranges([healthy, clipped])
    assert explanation
    assert explanation.cause == "clipped-range"
    assert explanation.evidence.startswith("cell2/t1/hidden_state: 40 % of its values")
    assert "0.1 in the graph, 0.8 in the calibration table" in explanation.evidence


@pytest.mark.parametrize(
    ("bits", "flags", "saturates"),
    [
        (8, {"avx2"}, True),
        (7, {"avx2"}, False),
        (8, {"avx2", "avx512_vnni"}, False),
        (None, {"avx2"}, False),  # not an engine of a CPU
    ],
)
def test_saturation_depends_on_weights_and_processor(
    bits: int | None, flags: set[str], saturates: bool
) -> None:
    explanation = explain_int8_engine(bits, int8_weights("x86_64", flags))
    assert (explanation is not None) == saturates
