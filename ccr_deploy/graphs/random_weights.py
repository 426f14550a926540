"""Replace the weights of a graph by random ones of the same scale, so that the graph can be shared."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from ccr_deploy.graphs.weights import initializer_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


def with_random_weights(model: ir.Model, seed: int) -> ir.Model:
    """Return a copy of a graph whose convolutions and matrix products have random weights and biases.

    Each output channel keeps its standard deviation and does not exceed its largest absolute value, so that
    the scales of Q/DQ pairs still fit. Two graphs that have nodes of the same names get the same random
    numbers for them, whatever their precisions.

    Args:
        model: the graph.
        seed: seed of the random numbers.
    """
    result = ir.from_proto(ir.to_proto(model))
    done: set[str] = set()
    for node in result.graph:
        if node.op_type not in {"Conv", "Gemm", "MatMul"}:
            continue
        for index, value in enumerate(node.inputs[1:], start=1):
            source = initializer_of(value)
            if source is not None and source.const_value is not None and str(source.name) not in done:
                done.add(str(source.name))
                weight = _random_like(source.const_value.numpy(), f"{seed} {node.name} {index}")
                source.const_value = ir.tensor(weight, name=source.name)
    return result


def random_inputs(
    feeds: Mapping[str, npt.NDArray[np.generic]], seed: int
) -> dict[str, npt.NDArray[np.generic]]:
    """Return random inputs of the same shapes, types, ranges and, if they are floating-point, deviations.

    Args:
        feeds: inputs by name.
        seed: seed of the random numbers.
    """
    return {name: _random_input(array, f"{seed} {name}") for name, array in feeds.items()}


def _random_like(weight: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.generic]:
    finite = np.isfinite(weight)
    values = np.where(finite, weight, 0).astype(np.float64)
    axes = tuple(range(1, values.ndim))
    deviation = values.std(axis=axes or None, keepdims=True)
    largest = np.abs(values).max(axis=axes or None, keepdims=True)
    drawn = _generator(name).standard_normal(values.shape) * deviation
    drawn = np.clip(drawn, -largest, largest)
    if weight.dtype.kind == "i":  # the integers of a quantized weight
        drawn = np.rint(drawn)
    # NaN and infinity stay, because they may be what is to be reported.
    return np.where(finite, drawn.astype(weight.dtype), weight)


def _random_input(array: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.generic]:
    generator = _generator(name)
    if array.dtype.kind != "f":
        return generator.integers(0, 256, array.shape, dtype=np.uint8)
    values = array.astype(np.float64)
    drawn = generator.normal(values.mean(), values.std(), array.shape)
    return np.clip(drawn, values.min(), values.max()).astype(array.dtype)


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
