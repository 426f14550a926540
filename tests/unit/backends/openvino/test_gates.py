"""Convolutions of four gates become one for each gate, and compute the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ccr_deploy.backends.openvino.cpu import import_openvino
from ccr_deploy.backends.openvino.gates import separate_gates

pytest.importorskip("openvino")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHANNELS = 3


def convolution(source: Any, weights: Any) -> Any:
    from openvino import opset13

    kernel = weights.get_output_partial_shape(0)[2].get_length()
    return opset13.convolution(source, weights, [1, 1], [kernel // 2] * 2, [kernel // 2] * 2, [1, 1])


def constant(outputs: int, kernel: int, seed: int) -> Any:
    from openvino import opset13

    values = np.random.default_rng(seed).normal(size=(outputs, CHANNELS, kernel, kernel))
    return opset13.constant(values.astype(np.float32))


def quantized(outputs: int, kernel: int, seed: int, scale_shape: Sequence[int] | None = None) -> Any:
    """Return weights as OpenVINO reads a DequantizeLinear of ONNX with a scale for each channel.

    With a `scale_shape`, the scale is a constant of that shape.
    """
    from openvino import opset13

    random = np.random.default_rng(seed)
    integers = random.integers(-127, 128, (outputs, CHANNELS, kernel, kernel), dtype=np.int8)
    if scale_shape is not None:
        scale = opset13.constant(random.uniform(0.001, 0.01, scale_shape).astype(np.float32))
        return opset13.multiply(opset13.convert(opset13.constant(integers), "f32"), scale)
    scales = opset13.constant(random.uniform(0.001, 0.01, outputs).astype(np.float32))
    zeros = opset13.convert(opset13.constant(np.zeros(outputs, np.int8)), "f32")
    shape = opset13.constant([outputs, 1, 1, 1])
    centred = opset13.subtract(
        opset13.convert(opset13.constant(integers), "f32"), opset13.reshape(zeros, shape, special_zero=False)
    )
    return opset13.multiply(centred, opset13.reshape(scales, shape, special_zero=False))


def cell(
    *,
    read: Sequence[int] = (0, 1, 2, 3),
    axis: int = 1,
    twice: bool = False,
    weights: Callable[[int, int, int], Any] = constant,
) -> Any:
    """Return a model that sums an input and a hidden convolution, and returns the sum of some gates."""
    from openvino import Model, opset13

    image = opset13.parameter([-1, CHANNELS, 8, 8], np.float32, name="image")
    first, second = weights(4 * CHANNELS, 3, 0), weights(4 * CHANNELS, 1, 1)

    def state(hidden: Any) -> Any:
        gates = opset13.add(convolution(image, first), convolution(hidden, second))
        parts = opset13.split(gates, opset13.constant(axis), 4)
        result = opset13.sigmoid(parts.output(read[0]))
        for number in read[1:]:
            result = opset13.add(result, opset13.tanh(parts.output(number)))
        return result

    return Model([state(state(image)) if twice else state(image)], [image])


def counts(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


def output(model: Any) -> np.ndarray:
    image = np.random.default_rng(2).normal(size=(2, CHANNELS, 8, 8)).astype(np.float32)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    return import_openvino().Core().compile_model(model, "CPU", config)([image])[0]


def test_each_gate_has_its_convolutions_and_the_result_is_the_same() -> None:
    model = cell()
    expected = output(model)
    separate_gates(model)
    assert counts(model)["Split"] == 0
    assert counts(model)["Convolution"] == 2 * 4
    np.testing.assert_allclose(output(model), expected, rtol=1e-5, atol=1e-6)


def test_a_gate_that_nothing_reads_is_not_computed() -> None:
    model = cell(read=(0, 2, 3))
    expected = output(model)
    separate_gates(model)
    assert counts(model)["Convolution"] == 2 * 3
    np.testing.assert_allclose(output(model), expected, rtol=1e-5, atol=1e-6)


def test_iterations_share_their_weights_and_equal_convolutions() -> None:
    model = cell(twice=True)
    expected = output(model)
    separate_gates(model)
    # Eight tensors of weights, of two convolutions with four gates each.
    assert counts(model)["Constant"] == 2 * 4
    np.testing.assert_allclose(output(model), expected, rtol=1e-5, atol=1e-6)


def test_quantized_weights_are_divided_with_their_scales() -> None:
    model = cell(weights=quantized)
    expected = output(model)
    separate_gates(model)
    assert counts(model)["Split"] == 0
    assert counts(model)["Convolution"] == 2 * 4
    arrays = [node.get_data() for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    integers = [array.shape for array in arrays if array.dtype == np.int8 and array.ndim == 4]
    assert sorted(integers) == [*[(CHANNELS, CHANNELS, 1, 1)] * 4, *[(CHANNELS, CHANNELS, 3, 3)] * 4]
    np.testing.assert_allclose(output(model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("scale_shape", "splits"), [([], 0), ([1, 1, 1, 1], 0), ([1, CHANNELS, 1, 1], 1), ([CHANNELS, 1, 1], 1)]
)
def test_only_scales_of_all_or_of_output_channels_are_divided(scale_shape: list[int], splits: int) -> None:
    model = cell(weights=lambda *given: quantized(*given, scale_shape))
    expected = output(model)
    separate_gates(model)
    assert counts(model)["Split"] == splits
    np.testing.assert_allclose(output(model), expected, rtol=1e-5, atol=1e-6)


def test_weights_that_are_not_constants_stay() -> None:
    from openvino import Model, opset13

    image = opset13.parameter([-1, CHANNELS, 8, 8], np.float32, name="image")
    weights = opset13.parameter([4 * CHANNELS, CHANNELS, 1, 1], np.float32, name="weights")
    parts = opset13.split(convolution(image, weights), opset13.constant(1), 4)
    model = Model([opset13.tanh(parts.output(0))], [image, weights])
    separate_gates(model)
    assert counts(model)["Split"] == 1


def test_a_split_of_another_axis_stays() -> None:
    model = cell(axis=2)
    separate_gates(model)
    assert counts(model)["Split"] == 1
    assert counts(model)["Convolution"] == 2


def test_an_output_of_a_split_keeps_its_name() -> None:
    model = cell()
    split = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Split")
    split.output(0).get_tensor().set_names({"gate"})
    model.add_outputs([split.output(0)])
    separate_gates(model)
    assert "gate" in model.outputs[1].get_names()
    assert output(model).shape == (2, CHANNELS, 8, 8)
