"""Whether an INT8 engine computes what its graph says: the check that every backend makes when it builds one.

Libraries transform Q/DQ graphs before they execute them, and some transformations are wrong for some graphs,
versions or processors. So the engine's activations are compared with those of the graph as it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.stages import DEFAULT_SCHEDULE
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.base import BuildSource
    from ccr_deploy.backends.runner import Runner

MAX_DEVIATION_RATIO = 2
"""How much further an engine may be from its graph than its graph is from the one before quantization.

Two correct computations of one quantized graph round some activations to neighbouring steps, so that they
differ as much as two draws of the quantization error: measured 0 to 1.1 times that error for right engines,
8.7 times and more for sums that saturate, 80 times and more for graphs that were transformed wrongly.
"""
FLOATING_POINT_DEVIATION = 2**-10
"""Relative; what FP16's rounding makes anyway, for graphs whose quantization changes next to nothing."""


@dataclass(frozen=True)
class CheckedRunners:
    """The same stage four times; all but `engine` show an encoder's activations as their last output.

    `observed` is compiled as the engine is, `as_written` computes every Q/DQ pair as rounding and the rest in
    floating point, and `unquantized` is the graph before it was quantized, in FP32 or FP16.
    """

    engine: Runner
    observed: Runner
    as_written: Runner
    unquantized: Runner


def check_agreement(source: BuildSource, runners: CheckedRunners, library: str, version: str) -> None:
    """Compare an INT8 engine with its graph as it is written, on the source's samples.

    Args:
        source: what the engine is built from.
        runners: the engine and what it is compared with.
        library: the name of the library that executes the engine, for the message.
        version: the library's.

    Raises:
        EngineError: rounding does not explain how much they differ.
    """
    feeds = source.samples()
    observed, as_written, unquantized = (
        list(runner.infer(feeds).values())
        for runner in (runners.observed, runners.as_written, runners.unquantized)
    )
    deviation = relative_deviation(observed[-1], as_written[-1])
    of_quantization = relative_deviation(as_written[-1], unquantized[-1])
    limit = max(MAX_DEVIATION_RATIO * of_quantization, FLOATING_POINT_DEVIATION)
    agrees = deviation <= limit
    if source.stage == "encoder":  # to show its activations must not have changed what it computes
        (code,) = runners.engine.infer(feeds).values()
        agrees = agrees and is_code_of(code, observed[-1], limit)
    if not agrees:
        schedule = f" {source.schedule}" if source.schedule else ""
        raise EngineError(
            f"{source.graph}: {library} {version} computes this INT8{schedule} {source.stage} wrongly: its "
            f"activations deviate by {100 * deviation:.3g} % from the graph as written, which quantization "
            f"moved by {100 * of_quantization:.3g} %: use {_remedy(source, library)}"
        )


def is_code_of(code: npt.NDArray[np.generic], activations: npt.NDArray[np.generic], tolerance: float) -> bool:
    """Tell whether a packed code's bits are the activations' signs, but for activations next to zero.

    Args:
        code: ``uint8 [N, bytes]``.
        activations: the pre-binarization activations, ``float32 [N, channels, rows, columns]``.
        tolerance: what counts as next to zero, as a part of the activations' root mean square.
    """
    values = np.asarray(activations, dtype=np.float64).reshape(len(activations), -1)
    bits = np.unpackbits(np.asarray(code, dtype=np.uint8), axis=1)
    far_from_zero = np.abs(values) > tolerance * np.sqrt(np.mean(values**2))
    return bool(np.array_equal(bits[far_from_zero], (values >= 0)[far_from_zero]))


def relative_deviation(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """Compute ``|found - expected| / |expected|`` over all values, by the Euclidean norm; NaN stays NaN."""
    other = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(found, dtype=np.float64) - other) / np.linalg.norm(other))


def _remedy(source: BuildSource, library: str) -> str:
    """What may help: not the schedule that is in use."""
    helps = DEFAULT_SCHEDULE in source.other_schedules
    schedule = f"the schedule {DEFAULT_SCHEDULE}, " if helps else ""
    return f"{schedule}FP32, or another version of {library}"
