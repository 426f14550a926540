"""Faults of a graph that can be recognised without running it: beside the graph that it should equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.verification.code_faults import Explanation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.int8_weights import Int8Weights

    Array = npt.NDArray[np.generic]
    Steps = npt.NDArray[np.floating]

FP16_TOLERANCE = 2**-10
"""Relative difference of two weights that FP16 rounding explains, twice over."""
FP16_SMALLEST = 2**-24
"""Absolute difference that FP16 rounding explains near 0."""
CLIPPED_PERCENT = 2.0
"""The share of clipped values from which a range is reported; entropy clips outliers on purpose."""


@dataclass(frozen=True)
class GraphParts:
    """What two graphs of one stage are compared by.

    `weights` are arrays by layer and kind (``cell2/hidden_conv/weight``), `iterations` is the largest
    iteration in the names of its nodes, None without a recurrence. `steps` are the scales of the weights that
    are quantized, in a shape that broadcasts to the weight's: quantization changes them by up to half a step.
    """

    weights: Mapping[str, Array]
    iterations: int | None
    steps: Mapping[str, Steps] = field(default_factory=dict)


@dataclass(frozen=True)
class ClippedRange:
    """The range of an activation in a graph and in the calibration table, and how much of it is clipped.

    `table_range` is None if the bundle has no table with the tensor.
    """

    tensor: str
    graph_range: float
    table_range: float | None
    clipped_percent: float


def explain_graph(found: GraphParts, expected: GraphParts) -> Explanation | None:
    """Return the first difference between two graphs that names a cause; None if there is none.

    Args:
        found: the graph whose outputs differ.
        expected: the graph that it was made from, or should equal.
    """
    tests = (_cut(found, expected), _iterations(found, expected), *_weights(found, expected))
    return next((explanation for explanation in tests if explanation), None)


def explain_ranges(tensors: Sequence[ClippedRange]) -> Explanation | None:
    """Return the activation that an INT8 graph clips most; None if none is clipped noticeably."""
    worst = max(tensors, key=lambda tensor: tensor.clipped_percent, default=None)
    if worst is None or worst.clipped_percent < CLIPPED_PERCENT:
        return None
    stated = "" if worst.table_range is None else f", {worst.table_range:.3g} in the calibration table"
    return Explanation(
        "clipped-range",
        f"{worst.tensor}: {worst.clipped_percent:.0f} % of its values are outside of its range, "
        f"{worst.graph_range:.3g} in the graph{stated}",
        0.0,
    )


def explain_int8_engine(weight_bits: int | None, here: Int8Weights) -> Explanation | None:
    """Return whether sums of an INT8 engine can saturate on this CPU.

    Args:
        weight_bits: the bits of the engine's weights; None if its backend does not limit them.
        here: what this CPU allows.
    """
    if weight_bits is None or weight_bits <= here.bits:
        return None
    return Explanation(
        "int8-saturation",
        f"the engine has {weight_bits}-bit weights, but {here.reason}: sums saturate; build it again here",
        0.0,
    )


def _cut(found: GraphParts, expected: GraphParts) -> Explanation | None:
    stages, others = _residual_stages(found), _residual_stages(expected)
    if stages == others:
        return None
    return Explanation(
        "other-cut",
        f"the graph has the residual stages {', '.join(stages)}, the model {', '.join(others)}",
        0.0,
    )


def _iterations(found: GraphParts, expected: GraphParts) -> Explanation | None:
    if found.iterations == expected.iterations:
        return None
    return Explanation(
        "iterations", f"the graph has T = {found.iterations}, the model {expected.iterations}", 0.0
    )


def _weights(found: GraphParts, expected: GraphParts) -> Iterator[Explanation]:
    different = [
        name
        for name, array in expected.weights.items()
        if _differs(found.weights.get(name), array, found.steps.get(name))
    ]
    if not different:
        return
    first = different[0]
    if first.startswith("normalise/"):
        values, others = (parts.weights.get(first) for parts in (found, expected))
        yield Explanation("normalisation", f"{first}: {_numbers(values)} instead of {_numbers(others)}", 0.0)
    counted = f"{len(different)} of {len(expected.weights)} weights differ"
    if 2 * len(different) > len(expected.weights):
        yield Explanation("other-weights", counted, 0.0)
    yield from _one_weight(first, found, expected.weights[first], counted)


def _one_weight(name: str, parts: GraphParts, expected: Array, counted: str) -> Iterator[Explanation]:
    found = parts.weights.get(name)
    if found is None or found.shape != expected.shape:
        shape = "missing" if found is None else f"of shape {list(found.shape)}"
        yield Explanation("other-weights", f"{name} is {shape} instead of {list(expected.shape)}", 0.0)
        return
    if zeroed := _zeroed_rows(found, expected):
        yield Explanation("dead-channel", f"{name}: output channels {zeroed} are 0; {counted}", 0.0)
    tolerance = _tolerance(found, parts.steps.get(name))
    for axis, kind in ((0, "output"), (1, "input")):
        if found.ndim > axis and _is_permuted(found, expected, tolerance, axis):
            yield Explanation("swapped-channels", f"{name}: {kind} channels are swapped; {counted}", 0.0)
    wrong = ~_is_close(found, expected, tolerance)
    largest = float(np.abs(found.astype(np.float64) - expected.astype(np.float64))[wrong].max())
    yield Explanation(
        "changed-weight",
        f"{name}: {wrong.sum()} of {wrong.size} values, by up to {largest:.2g}; {counted}",
        0.0,
    )


def _zeroed_rows(found: Array, expected: Array) -> list[int]:
    axes = tuple(range(1, found.ndim))
    return np.flatnonzero(~found.any(axis=axes) & expected.any(axis=axes)).tolist()


def _is_permuted(found: Array, expected: Array, tolerance: Array, axis: int) -> bool:
    """Return whether each channel of one weight is close to a channel of the other, and vice versa."""
    rows, others, tolerances = (
        np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
        for array in (found, expected, tolerance)
    )
    # Of |row|^2 - 2 row * other + |other|^2, which is the squared distance.
    distances = np.square(rows).sum(1)[:, None] - 2 * rows @ others.T + np.square(others).sum(1)
    nearest, nearest_row = distances.argmin(axis=1), distances.argmin(axis=0)
    return bool(
        _is_close(rows, others[nearest], tolerances).all()
        and _is_close(rows[nearest_row], others, tolerances[nearest_row]).all()
    )


def _differs(found: Array | None, expected: Array, step: Steps | None) -> bool:
    if found is None or found.shape != expected.shape:
        return True
    return not _is_close(found, expected, _tolerance(found, step)).all()


def _tolerance(found: Array, step: Steps | None) -> Array:
    """Return the absolute difference that rounding explains, in the shape of the weight."""
    return np.broadcast_to(FP16_SMALLEST if step is None else step / 2, found.shape)


def _is_close(found: Array, expected: Array, tolerance: Array) -> npt.NDArray[np.bool_]:
    # Converted graphs have FP16 weights.
    return np.isclose(found, expected, rtol=FP16_TOLERANCE, atol=tolerance)


def _residual_stages(parts: GraphParts) -> list[str]:
    return sorted({name.partition("/")[0] for name in parts.weights if name.startswith("layer")})


def _numbers(values: Array | None) -> str:
    return "none" if values is None else ", ".join(f"{value:.4g}" for value in values.ravel().tolist())
