"""Choose the integers of an INT8 encoder's weights, and correct its biases, from calibration images alone.

- Adaptive rounding: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
  choose the rounding of each weight that changes a layer's outputs the least. Here the choice is made weight
  by weight, each followed by a correction of the weights that are not rounded yet, which needs no gradient
  descent: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
  Transformers", ICLR 2023.
- Bias correction: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
  ICCV 2019. The encoder's convolutions have no biases: they get some, which need no further operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.graphs.activations import with_outputs
from ccr_deploy.graphs.convolutions import convolutions, is_quantized
from ccr_deploy.graphs.weights import initializer_of, step_of
from ccr_deploy.models.family import signal_of
from ccr_deploy.workflow.graphs import model_runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Arrays

    Matrix = npt.NDArray[np.float64]

DAMPING = 0.01
"""Added to the diagonal of the second moments to make them regular, in multiples of its mean; as in GPTQ."""


def adapt_rounding(
    int8: ir.Model, fp32: ir.Model, images: npt.NDArray[np.uint8], *, towards_fp32: bool = False
) -> ir.Model:
    """Return an INT8 encoder whose weights are rounded so that each layer's outputs change the least.

    The layers are rounded one after the other, each with the inputs that it gets from the layers before it.

    Args:
        int8: the encoder with Q/DQ pairs and weights that are stored as integers.
        fp32: the encoder in FP32.
        images: calibration images, ``uint8 [N, H, W, 3]``.
        towards_fp32: whether the outputs are compared with those of FP32 on its own inputs, so that weights
            also make up for the rounding of activations; otherwise with those on the INT8 encoder's inputs.
    """
    result = ir.from_proto(ir.to_proto(int8))
    references = {node.name: node for node in convolutions(fp32)}
    for nodes in _quantized_layers(result).values():
        originals = [references[node.name] for node in nodes]
        inputs = _columns_of(result, nodes, images)
        moments = inputs @ inputs.T
        moments += DAMPING * np.diag(moments).mean() * np.eye(len(moments))
        weights = _weight(originals[0])
        rows = weights.reshape(len(weights), -1).astype(np.float64)
        if towards_fp32:
            missing = rows @ (_columns_of(fp32, originals, images) - inputs)
            rows += np.linalg.solve(moments, inputs @ missing.T).T
        stored = initializer_of(nodes[0].inputs[1])
        steps = step_of(nodes[0].inputs[1])
        assert stored is not None
        assert steps is not None
        integers = rounded(rows / steps.reshape(-1, 1), moments)
        stored.const_value = ir.tensor(integers.reshape(weights.shape), name=stored.name)
    return result


def rounded(rows: Matrix, moments: Matrix) -> npt.NDArray[np.int8]:
    """Round the weights of a layer one input after the other, and let the others make up for each error.

    Args:
        rows: the weights in multiples of their scales, ``float64 [outputs, inputs]``.
        moments: the second moments of the inputs, ``float64 [inputs, inputs]``, positive definite.

    Returns:
        The integers, ``int8 [outputs, inputs]``.
    """
    # Row i of the upper Cholesky factor of the inverse has the correction of the weights behind i that makes
    # up best for an error of weight i (Frantar et al., algorithm 1).
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T
    remaining = rows.copy()
    integers = np.zeros(rows.shape, dtype=np.int8)
    for i in range(rows.shape[1]):
        integers[:, i] = np.clip(np.rint(remaining[:, i]), -128, 127)
        error = (remaining[:, i] - integers[:, i]) / factor[i, i]
        remaining[:, i:] -= error[:, None] * factor[i, i:]
    return integers


def correct_biases(int8: ir.Model, fp32: ir.Model, images: npt.NDArray[np.uint8]) -> ir.Model:
    """Return an INT8 encoder whose convolutions have the same mean outputs as those of FP32, by channel.

    The layers are corrected one after the other. A layer has one bias for all iterations.

    Args:
        int8: the encoder with Q/DQ pairs.
        fp32: the encoder in FP32.
        images: calibration images, ``uint8 [N, H, W, 3]``.
    """
    result = ir.from_proto(ir.to_proto(int8))
    for name, nodes in _quantized_layers(result).items():
        outputs = [str(node.outputs[0].name) for node in nodes]
        wanted, found = (_tensors(model, outputs, images) for model in (fp32, result))
        errors = np.stack([np.subtract(wanted[output], found[output]) for output in outputs])
        tensor = ir.tensor(errors.mean(axis=(0, 1, 3, 4), dtype=np.float64).astype(np.float32))
        bias = ir.val(f"{name}/bias", const_value=tensor)
        result.graph.register_initializer(bias)
        for node in nodes:
            node.resize_inputs(3)
            node.replace_input_with(2, bias)
    return result


def without_rounded_weights(int8: ir.Model, fp32: ir.Model) -> ir.Model:
    """Return an INT8 encoder that rounds activations alone: with the weights of FP32."""
    result = ir.from_proto(ir.to_proto(int8))
    originals = {node.name: _weight(node) for node in convolutions(fp32)}
    for name, nodes in _quantized_layers(result).items():
        weight = ir.val(f"{name}/fp32_weight", const_value=ir.tensor(originals[nodes[0].name]))
        result.graph.register_initializer(weight)
        for node in nodes:
            node.replace_input_with(1, weight)
    return result


def _quantized_layers(model: ir.Model) -> dict[str, list[ir.Node]]:
    """Return the quantized convolutions by layer, one for each iteration, in the graph's order."""
    layers: dict[str, list[ir.Node]] = {}
    for node in filter(is_quantized, convolutions(model)):
        layers.setdefault(signal_of(node.name or ""), []).append(node)
    return layers


def _tensors(model: ir.Model, names: Iterable[str], images: npt.NDArray[np.uint8]) -> Arrays:
    with model_runner(with_outputs(model, names)) as runner:
        return runner.infer({"image": images})


def _columns_of(model: ir.Model, nodes: Sequence[ir.Node], images: npt.NDArray[np.uint8]) -> Matrix:
    """Return all inputs of a layer: ``float64 [inputs, positions]``, of all images and iterations."""
    names = [str(node.inputs[0].name) for node in nodes if node.inputs[0] is not None]
    tensors = _tensors(model, names, images)
    return np.concatenate([_columns(tensors[name], nodes[0]) for name in names], axis=1)


def _columns(activation: npt.NDArray[np.generic], conv: ir.Node) -> Matrix:
    """Return the inputs of a convolution at every position: ``float64 [inputs, positions]``."""
    top, left, bottom, right = conv.attributes["pads"].as_ints()
    rows, columns = conv.attributes["strides"].as_ints()
    padded = np.pad(activation.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = _kernel(conv)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::rows, ::columns]
    channels = activation.shape[1] * kernel[0] * kernel[1]
    return windows.transpose(1, 4, 5, 0, 2, 3).reshape(channels, -1)


def _kernel(conv: ir.Node) -> tuple[int, int]:
    stored = initializer_of(conv.inputs[1])
    assert stored is not None
    assert stored.const_value is not None
    _, _, rows, columns = stored.const_value.numpy().shape
    return rows, columns


def _weight(conv: ir.Node) -> npt.NDArray[np.float32]:
    """Return the weight of a convolution of an FP32 graph."""
    value = initializer_of(conv.inputs[1])
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()
