"""Check that an INT8 engine computes what its graph defines; CPU backends run the check on every INT8 build.

Libraries transform Q/DQ graphs before they execute them, and some transformations are wrong for some graphs,
versions or processors. The check therefore compares the engine's activations with those of the untransformed
graph.
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
"""The largest allowed deviation of an engine from its graph, as a multiple of the quantization error.

The quantization error is the deviation of the quantized graph from the graph before quantization. Two correct
computations of one quantized graph round some activations to neighbouring steps, so that they differ by about
one quantization error. Measured: 0 to 1.1 times that error for correct engines, at least 8.7 times if sums
saturate, and at least 80 times if the graph was transformed wrongly.
"""
FLOATING_POINT_DEVIATION = 2**-10
"""The relative deviation that FP16 rounding causes: the limit if quantization changes almost nothing."""


@dataclass(frozen=True)
class CheckedRunners:
    """Four runners of one stage; all but `engine` return an encoder's activations as their last output.

    `observed` is compiled like the engine. `as_written` executes the graph without transformations: every
    Q/DQ pair rounds, and all else is floating-point arithmetic. `unquantized` executes the graph before
    quantization, in FP32 or FP16.
    """

    engine: Runner
    observed: Runner
    as_written: Runner
    unquantized: Runner


def check_agreement(source: BuildSource, runners: CheckedRunners, library: str, version: str) -> None:
    """Compare an INT8 engine with its untransformed graph on the source's samples.

    Args:
        source: the inputs of the build.
        runners: the engine, and the runners that it is compared with.
        library: the name of the library that executes the engine, for the message.
        version: the library's version, for the message.

    Raises:
        EngineError: if they differ by more than rounding explains.
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
    if source.stage == "encoder":
        # An additional output may keep a library from a transformation. The code of the engine itself must
        # therefore follow from the activations that the observed copy returned.
        (code,) = runners.engine.infer(feeds).values()
        agrees = agrees and is_code_of(code, observed[-1], limit)
    if not agrees:
        schedule = f" {source.schedule}" if source.schedule else ""
        raise EngineError(
            f"{source.graph}: {library} {version} computes this INT8{schedule} {source.stage} wrongly: its "
            f"activations deviate from the graph's by {100 * deviation:.3g} %, quantization alone explains "
            f"{100 * of_quantization:.3g} %: use {_remedy(source, library)}"
        )


def is_code_of(code: npt.NDArray[np.generic], activations: npt.NDArray[np.generic], tolerance: float) -> bool:
    """Return whether the bits of a packed code are the signs of activations, ignoring activations near zero.

    Args:
        code: the packed code, ``uint8 [N, bytes]``.
        activations: the pre-binarization activations, ``float32 [N, channels, rows, columns]``.
        tolerance: the largest absolute value that is ignored, as a fraction of the activations' root mean
            square.
    """
    values = np.asarray(activations, dtype=np.float64).reshape(len(activations), -1)
    bits = np.unpackbits(np.asarray(code, dtype=np.uint8), axis=1)
    far_from_zero = np.abs(values) > tolerance * np.sqrt(np.mean(values**2))
    return bool(np.array_equal(bits[far_from_zero], (values >= 0)[far_from_zero]))


def relative_deviation(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """Compute ``|found - expected| / |expected|`` in the Euclidean norm; NaN if a value is NaN."""
    other = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(found, dtype=np.float64) - other) / np.linalg.norm(other))


def _remedy(source: BuildSource, library: str) -> str:
    """Return what to use instead; the default schedule only if the failed engine has another one."""
    has_alternative = DEFAULT_SCHEDULE in source.other_schedules
    schedule = f"the schedule {DEFAULT_SCHEDULE}, " if has_alternative else ""
    return f"{schedule}FP32, or another version of {library}"
