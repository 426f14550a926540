"""The roofline model: the time that a machine's limits allow for the work of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.backends.roofline import computing_seconds, moving_seconds
from ccr_deploy.benchmarking.roofline_results import EngineRoofline, Limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ccr_deploy.benchmarking.machine_limits import MachineLimits
    from ccr_deploy.benchmarking.results import Timing
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.graphs.work import GraphWork


@dataclass(frozen=True)
class EngineWork:
    """The work of one run of an engine.

    `computes_in` is the precision of what is not quantized: the engine's own, and for an INT8 engine that of
    its floating-point parts.
    """

    work: GraphWork
    computes_in: EnginePrecision


def floating_point(precision: EnginePrecision, *, on_gpu: bool) -> EnginePrecision:
    """Return the precision in which an engine computes what is not quantized."""
    if precision != "int8":
        return precision
    return "fp16" if on_gpu else "fp32"


def needed_precisions(precisions: Iterable[EnginePrecision], *, on_gpu: bool) -> tuple[EnginePrecision, ...]:
    """Return the precisions whose matrix rates engines of some precisions need, each once.

    Args:
        precisions: precisions of the engines.
        on_gpu: whether the engines run on a GPU.
    """
    needed = ((precision, floating_point(precision, on_gpu=on_gpu)) for precision in precisions)
    return tuple(dict.fromkeys(precision for pair in needed for precision in pair))


def against_limits(timing: Timing, engines: Sequence[EngineWork], limits: MachineLimits) -> EngineRoofline:
    """Compare the measured time of a candidate with what the machine's limits allow.

    Args:
        timing: the candidate's times.
        engines: the work of its engines, at least one, in the order in which they run.
        limits: the machine's limits.
    """
    total = engines[0].work
    for engine in engines[1:]:
        total += engine.work
    least, most = (
        1e3 * moving_seconds(moved, limits.bandwidth.gigabytes_per_second)
        for moved in (total.least_bytes, total.most_bytes)
    )
    matrix = _matrix_ms(engines, limits)
    bound = None if matrix is None else max(matrix, least)
    return EngineRoofline(
        subject=timing.subject,
        candidate=timing.candidate,
        is_target=timing.is_target,
        multiply_accumulates=total.multiply_accumulates,
        int8_multiply_accumulates=total.int8_multiply_accumulates,
        least_bytes=total.least_bytes,
        most_bytes=total.most_bytes,
        lowest_intensity=total.multiply_accumulates / total.most_bytes,
        highest_intensity=total.multiply_accumulates / total.least_bytes,
        latency_ms_p50=timing.latency_ms_p50,
        matrix_ms=matrix,
        least_memory_ms=least,
        most_memory_ms=most,
        bound_ms=bound,
        reached_percent=None if bound is None else 100 * bound / timing.latency_ms_p50,
        limit=limit_of(matrix, least, most),
    )


def limit_of(matrix_ms: float | None, least_memory_ms: float, most_memory_ms: float) -> Limit | None:
    """Return what bounds a run; None if the time that the matrix rate allows is not known.

    Args:
        matrix_ms: time that the matrix rate alone allows.
        least_memory_ms: time that the bandwidth alone allows for the least bytes.
        most_memory_ms: the same for the most bytes.
    """
    if matrix_ms is None:
        return None
    if matrix_ms >= most_memory_ms:
        return "matrix rate"
    return "memory" if least_memory_ms >= matrix_ms else "undecided"


def _matrix_ms(engines: Iterable[EngineWork], limits: MachineLimits) -> float | None:
    rates = {rate.precision: rate.gmac_per_second for rate in limits.rates}
    seconds = 0.0
    for engine in engines:
        int8 = engine.work.int8_multiply_accumulates
        parts: tuple[tuple[EnginePrecision, int], ...] = (
            ("int8", int8),
            (engine.computes_in, engine.work.multiply_accumulates - int8),
        )
        for precision, work in parts:
            if work and precision not in rates:
                return None
            seconds += computing_seconds(work, rates[precision]) if work else 0
    return 1e3 * seconds
