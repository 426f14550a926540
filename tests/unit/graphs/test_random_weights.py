"""Random weights keep shape, type and scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ccr_deploy.graphs.random_weights import random_inputs, with_random_weights

WEIGHT = np.random.default_rng(1).normal(0, [[[[0.1]]], [[[10]]]], (2, 32, 3, 3)).astype(np.float32)


def convolution(weight: np.ndarray) -> ir.Model:
    value = ir.Value(name="conv/weight", const_value=ir.tensor(weight))
    image = ir.Value(name="image")
    node = ir.node("Conv", [image, value], name="conv")
    return ir.Model(ir.Graph([image], node.outputs, nodes=[node], initializers=[value]), ir_version=9)


def weight_of(model: ir.Model) -> np.ndarray:
    value = model.graph.initializers["conv/weight"].const_value
    assert value is not None
    return value.numpy()


def test_random_weights_have_the_scale_of_each_channel() -> None:
    model = convolution(WEIGHT)
    found = weight_of(with_random_weights(model, seed=0))
    assert (found.shape, found.dtype) == (WEIGHT.shape, WEIGHT.dtype)
    assert not np.isclose(found, WEIGHT).all()
    assert found.std(axis=(1, 2, 3)) == pytest.approx(WEIGHT.std(axis=(1, 2, 3)), rel=0.2)
    assert (np.abs(found).max(axis=(1, 2, 3)) <= np.abs(WEIGHT).max(axis=(1, 2, 3)) * 1.001).all()
    assert np.array_equal(weight_of(model), WEIGHT)  # the graph itself did not change
    assert np.abs(np.corrcoef(found[0].ravel(), WEIGHT[0].ravel())[0, 1]) < 0.3


def test_two_precisions_of_a_graph_get_the_same_random_weights() -> None:
    low = weight_of(with_random_weights(convolution(WEIGHT.astype(np.float16)), seed=3))
    assert low.dtype == np.float16
    assert low == pytest.approx(
        weight_of(with_random_weights(convolution(WEIGHT), seed=3)), rel=0.01, abs=0.01
    )
    assert not np.allclose(low, weight_of(with_random_weights(convolution(WEIGHT), seed=4)))


def test_quantized_weights_get_the_random_weights_of_their_graph_rounded() -> None:
    step = np.abs(WEIGHT).max(axis=(1, 2, 3), keepdims=True) / 127
    found = weight_of(with_random_weights(convolution(np.rint(WEIGHT / step).astype(np.int8)), seed=3))
    assert found.dtype == np.int8
    expected = weight_of(with_random_weights(convolution(WEIGHT), seed=3))
    # Half a step for rounding, and a little for the deviation, which is computed from rounded weights.
    assert (np.abs(found * step - expected) < 0.6 * step).all()


def test_values_that_are_not_finite_stay() -> None:
    weight = WEIGHT.copy()
    weight[1, 2] = np.nan
    found = weight_of(with_random_weights(convolution(weight), seed=0))
    assert np.array_equal(np.isnan(found), np.isnan(weight))


def test_random_inputs_keep_shape_type_and_range() -> None:
    feeds = {"image": np.full((1, 4), 7, dtype=np.uint8), "state": np.linspace(-1, 3, 64).astype(np.float16)}
    found = random_inputs(feeds, seed=0)
    for name, array in feeds.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        assert not np.array_equal(found[name], array)
    assert found["state"].min() >= -1
    assert found["state"].max() <= 3
