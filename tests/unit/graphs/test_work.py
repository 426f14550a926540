"""Multiply-accumulates and bytes of a small graph, counted by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ccr_deploy.graphs.work import GraphWork, graph_work

FLOAT = ir.DataType.FLOAT


def constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def model_of(x: ir.Value, nodes: list[ir.Node], constants: list[ir.Value]) -> ir.Model:
    for node in nodes:
        node.outputs[0].name = node.name
    output = nodes[-1].outputs[0]
    output.dtype = FLOAT
    graph = ir.Graph([x], [output], nodes=nodes, initializers=constants, opset_imports={"": 19}, name="g")
    return ir.Model(graph, ir_version=9)


@pytest.fixture
def convolutions() -> ir.Model:
    """Two convolutions 1x1 of 2 to 2 channels with the same weights, on 4x4 pixels, and a Sigmoid."""
    x = ir.val("x", FLOAT, ["batch", 2, 4, 4])
    weight = constant("w", np.ones((2, 2, 1, 1), np.float32))
    first = ir.node("Conv", [x, weight], name="first")
    gate = ir.node("Sigmoid", [first.outputs[0]], name="gate")
    second = ir.node("Conv", [gate.outputs[0], weight], name="second")
    return model_of(x, [first, gate, second], [weight])


def test_weights_count_once_at_least_and_for_each_reader_at_most(convolutions: ir.Model) -> None:
    pixels, weights = 2 * 4 * 4 * 4, 16  # bytes
    assert graph_work(convolutions, 1) == GraphWork(
        multiply_accumulates=2 * 32 * 2,
        int8_multiply_accumulates=0,
        least_bytes=2 * pixels + weights,
        most_bytes=6 * pixels + 2 * weights,
    )


def test_a_batch_multiplies_activations_but_not_weights(convolutions: ir.Model) -> None:
    one, three = (graph_work(convolutions, batch) for batch in (1, 3))
    assert three.multiply_accumulates == 3 * one.multiply_accumulates
    assert three.least_bytes - 16 == 3 * (one.least_bytes - 16)
    assert graph_work(convolutions, 1, float_bytes=2).most_bytes == one.most_bytes // 2


def test_a_quantized_convolution_reads_integers() -> None:
    x = ir.val("x", FLOAT, ["batch", 2, 4, 4])
    scale, zero = constant("scale", np.float32(0.1)), constant("zero", np.int8(0))
    integers = constant("w", np.ones((2, 2, 1, 1), np.int8))
    quantize = ir.node("QuantizeLinear", [x, scale, zero], name="q")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name="dq")
    weight = ir.node("DequantizeLinear", [integers, scale, zero], name="wdq")
    conv = ir.node("Conv", [dequantize.outputs[0], weight.outputs[0]], name="conv")
    work = graph_work(model_of(x, [quantize, dequantize, weight, conv], [scale, zero, integers]), 1)
    assert (work.multiply_accumulates, work.int8_multiply_accumulates) == (64, 64)
    # Quantizing reads 128 bytes and writes 32; the convolution reads 32 and 4, and writes 128.
    assert work.most_bytes == (128 + 32 + 5) + (32 + 4 + 128)


def test_a_matrix_product_has_the_inner_dimension_and_views_move_nothing() -> None:
    x = ir.val("x", FLOAT, ["batch", 2, 3])
    shape, weight = constant("shape", np.array([0, 6])), constant("w", np.ones((6, 5), np.float32))
    flat = ir.node("Reshape", [x, shape], name="flat")
    product = ir.node("MatMul", [flat.outputs[0], weight], name="product")
    work = graph_work(model_of(x, [flat, product], [shape, weight]), 4)
    assert work.multiply_accumulates == 4 * 6 * 5
    assert work.most_bytes == 4 * (4 * 6 + 6 * 5 + 4 * 5)
