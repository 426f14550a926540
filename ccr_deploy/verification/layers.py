"""Comparison of the intermediate tensors of two ways to run a stage, and the first that is over tolerance.

An error is relative, and that of the worst channel: the root mean square of the difference in the channel
over the root mean square of the expected values, in the channel or in the whole tensor, whichever is larger.
So one wrong channel of many is visible, and rounding in a channel that is almost zero is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import ChainStage
from ccr_deploy.verification.results import Level

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.graphs.activations import Activation

SCHEMA_VERSION = 1

TOLERANCES: Mapping[EnginePrecision, float] = {"fp32": 1e-4, "fp16": 0.0125, "bf16": 0.1, "int8": 0.25}
"""The largest error of a tensor that rounding explains, by the precision of the stage.

Chosen well above the errors of correct graphs and CPU engines. The margin is for engines that also add in
FP16 or BF16; FP16 has 3 bits more than BF16, so that its tolerance is an eighth.
"""

OutputVerdict = Literal["equal", "in both", "only with extra outputs", "only without extra outputs"]


class TensorDifference(Record, frozen=True):
    """How much one tensor differs, over all images.

    `operator` is that of the node that computes it. `error` is that of the worst channel, `channel`, counted
    from 0. `input_error` is the largest error among the tensors that the node reads: if it is as large, the
    difference was not made here.
    """

    name: str
    operator: str
    error: float
    channel: int
    input_error: float


class FirstNonFinite(Record, frozen=True):
    """The first tensor of one way, in the order of execution, that has NaN or infinity."""

    stage: ChainStage
    way: Level
    name: str
    operator: str


class IterationFlips(Record, frozen=True):
    """Bits of the code after one iteration that differ, if the encoder stopped there."""

    iteration: int
    flipped_bits: int
    bits: int


class OutputCheck(Record, frozen=True):
    """How much the stage's output differs, with the extra outputs and without them.

    For a code, errors and `tolerance` are shares of flipped bits; for logits, they are those of a tensor.
    """

    name: str
    error: float
    error_without_extra_outputs: float
    tolerance: float

    @property
    def verdict(self) -> OutputVerdict:
        """Where the output is over tolerance."""
        marked = not self.error <= self.tolerance
        plain = not self.error_without_extra_outputs <= self.tolerance
        if marked == plain:
            return "in both" if marked else "equal"
        return "only with extra outputs" if marked else "only without extra outputs"


class LayerComparison(Record, frozen=True):
    """The tensors of one way to run a stage, compared with those of the way before it.

    `tensors` are in the order of execution. `not_comparable` are the tensors that only one of the two has.
    `iterations` is empty for a classifier.
    """

    stage: ChainStage
    level: Level
    against: Level
    precision: EnginePrecision
    tolerance: float
    tensors: tuple[TensorDifference, ...]
    not_comparable: tuple[str, ...]
    iterations: tuple[IterationFlips, ...]
    output: OutputCheck

    @property
    def over_tolerance(self) -> tuple[TensorDifference, ...]:
        """The tensors over tolerance, the first to be computed first."""
        return tuple(tensor for tensor in self.tensors if not tensor.error <= self.tolerance)

    @property
    def passed(self) -> bool:
        """Whether tensors and output are within their tolerances."""
        return not self.over_tolerance and self.output.verdict == "equal"

    @property
    def first_flipped_iteration(self) -> int | None:
        """The first iteration whose bits differ; None if no bit differs."""
        return next((flips.iteration for flips in self.iterations if flips.flipped_bits), None)


class ReducedGraph(Record, frozen=True):
    """The smallest part of a graph that is over tolerance, which was written to a folder.

    `tensor` is its output, `nodes` the number of its operators. `has_random_weights` tells whether its
    weights and inputs are random.
    """

    folder: str
    stage: ChainStage
    level: Level
    against: Level
    tensor: str
    nodes: int
    error: float
    tolerance: float
    has_random_weights: bool


class LayerReport(Record, frozen=True):
    """All results of one run of ``verify --layers``; `reduced` is set by ``--reduce`` if it wrote a graph."""

    schema_version: int
    created_by: str
    bundle: str
    contract_id: str
    weights_sha256: str
    target: str
    images: str
    image_count: int
    comparisons: tuple[LayerComparison, ...]
    non_finite: tuple[FirstNonFinite, ...]
    reduced: ReducedGraph | None = None

    @property
    def passed(self) -> bool:
        """Whether no tensor and no output is over tolerance, and all values are finite."""
        return not self.non_finite and all(comparison.passed for comparison in self.comparisons)


def channel_errors(
    found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]
) -> npt.NDArray[np.float64]:
    """Return the relative error of each channel: ``float64 [C]``; infinite if only one array is finite.

    Args:
        found: floating-point values, ``[…, C, rows, columns]`` or ``[N, C]``.
        expected: the values that they are compared with, of the same shape.
    """
    return relative_errors(*channel_squares(found, expected))


def channel_squares(
    found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean squares of the difference and of the expected values in each channel: ``float64 [C]``.

    A channel is an entry of the third-last dimension, or of the last one if there are fewer than three.
    Values that are not finite in both arrays count as zero.

    Args:
        found: floating-point values, ``[…, C, rows, columns]`` or ``[N, C]``.
        expected: the values that they are compared with, of the same shape.
    """
    one, two = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    finite = np.isfinite(one) | np.isfinite(two)
    axis = one.ndim - 3 if one.ndim >= 3 else one.ndim - 1
    others = tuple(number for number in range(one.ndim) if number != axis)
    difference = np.subtract(one, two, out=np.zeros_like(one), where=finite)
    values = np.where(np.isfinite(two), two, 0)
    return (difference**2).mean(axis=others), (values**2).mean(axis=others)


def relative_errors(
    differences: npt.NDArray[np.float64], squares: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the relative error of each channel from what `channel_squares` returns: ``float64 [C]``.

    Args:
        differences: mean square of the difference, ``float64 [C]``.
        squares: mean square of the expected values, ``float64 [C]``.
    """
    scale = np.maximum(squares, squares.mean())
    no_scale = np.where(differences == 0, 0, np.inf)
    errors = np.sqrt(np.divide(differences, scale, out=no_scale, where=scale > 0))
    return np.where(np.isnan(errors), np.inf, errors)


def iteration_bits(
    hidden_state: npt.NDArray[np.generic], weight: npt.NDArray[np.generic]
) -> npt.NDArray[np.bool_]:
    """Return the bits that the binarizer gives for a hidden state of the last cell: ``bool [N, K, h, w]``.

    Args:
        hidden_state: ``float [N, C, h, w]``.
        weight: the binarizer's 1x1 convolution, ``float [K, C, 1, 1]``.
    """
    weights = np.asarray(weight, dtype=np.float32)[:, :, 0, 0]
    values = np.einsum("kc,nchw->nkhw", weights, np.asarray(hidden_state, dtype=np.float32))
    bits: npt.NDArray[np.bool_] = values >= 0
    return bits


class TensorDifferences:
    """Collects how two ways differ, batch by batch.

    Args:
        activations: the activations of the way that is compared, in the order of execution.
        partners: the name of the tensor that each of them is compared with; None if there is none.
    """

    def __init__(self, activations: Mapping[str, Activation], partners: Mapping[str, str | None]) -> None:
        self._activations = activations
        self._partners = partners
        self._squares: dict[str, list[npt.NDArray[np.float64]]] = {}
        self._not_floating: set[str] = set()

    def add(self, found: Arrays, expected: Arrays) -> None:
        """Compare the tensors of one batch; all batches have the same size.

        Args:
            found: the tensors of the way that is compared, by logical name.
            expected: those of the way that it is compared with.
        """
        for name, array in found.items():
            partner = self._partners[name]
            if array.dtype.kind != "f":
                self._not_floating |= {name, partner or name}
            elif partner is not None and partner in expected and expected[partner].shape == array.shape:
                squares = np.stack(channel_squares(array, expected[partner]))
                self._squares.setdefault(name, []).append(squares)

    def tensors(self) -> tuple[TensorDifference, ...]:
        """Return the difference of each tensor, in the order of execution."""
        errors = {name: relative_errors(*np.mean(squares, axis=0)) for name, squares in self._squares.items()}
        return tuple(
            TensorDifference(
                name=name,
                operator=activation.operator,
                error=float(errors[name].max()),
                channel=int(errors[name].argmax()),
                input_error=max(
                    (float(errors[read].max()) for read in activation.inputs if read in errors), default=0.0
                ),
            )
            for name, activation in self._activations.items()
            if name in errors
        )

    def not_comparable(self, other: Iterable[str]) -> tuple[str, ...]:
        """Return the tensors that only one way has; `other` are those of the way it is compared with."""
        partners = {partner for name, partner in self._partners.items() if name in self._squares}
        alone = [name for name in self._activations if name not in self._squares]
        missing = [name for name in other if name not in partners]
        return tuple(name for name in dict.fromkeys((*alone, *missing)) if name not in self._not_floating)


def first_non_finite(tensors: Arrays) -> str | None:
    """Return the first of some tensors that has NaN or infinity."""
    return next(
        (name for name, array in tensors.items() if array.dtype.kind == "f" and not np.isfinite(array).all()),
        None,
    )
