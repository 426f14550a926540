"""The limits of this machine: its matrix rate in each precision, and its memory bandwidth.

Each measurement runs in a process of its own, ``python -m ccr_deploy.benchmarking.machine_limits``: the
number of threads of NumPy's BLAS is read when NumPy is imported, and threads of one library would disturb the
next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from ccr_deploy.benchmarking import limit_measurements
from ccr_deploy.benchmarking.roofline_results import MatrixRate, MemoryBandwidth
from ccr_deploy.core.child_process import ChildProcess, Owner, ProcessEndedError
from ccr_deploy.core.precisions import PRECISIONS, EnginePrecision
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.core.progress import Progress

_MODULE = "ccr_deploy.benchmarking.machine_limits"
_PATIENCE_SECONDS = 120
"""Time limit of one measurement, including the import of its library."""
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS")
"""The variables from which the libraries that NumPy may be built with read their number of threads."""

Library = Literal["numpy", "openvino", "torch"]


class Measurement(Record, frozen=True):
    """Message to a process: what to measure. A bandwidth has no `precision`.

    `library` computes; the bandwidth of a CPU is measured by NumPy, that of a GPU by torch.
    """

    library: Library
    precision: EnginePrecision | None
    threads: int
    tf32: bool = False


class MeasuredRate(Record, frozen=True, tag=True):
    """Message of a process: a matrix rate."""

    rate: MatrixRate


class MeasuredBandwidth(Record, frozen=True, tag=True):
    """Message of a process: a memory bandwidth."""

    bandwidth: MemoryBandwidth


class NotMeasured(Record, frozen=True, tag=True):
    """Message of a process: why nothing was measured."""

    reason: str


@dataclass(frozen=True)
class MachineLimits:
    """What was measured; `not_measured` are the reasons why the rate of a precision is missing."""

    rates: tuple[MatrixRate, ...]
    bandwidth: MemoryBandwidth
    not_measured: tuple[str, ...]


def measure_limits(
    precisions: Sequence[EnginePrecision],
    threads: int,
    *,
    on_gpu: bool,
    tf32: bool = False,
    progress: Progress = SILENT,
) -> MachineLimits:
    """Measure the matrix rates and the memory bandwidth of the processor or the GPU.

    Args:
        precisions: the precisions whose rates are needed.
        threads: the number of threads of the engines.
        on_gpu: whether the engines run on the GPU.
        tf32: whether the engines may compute FP32 products in TF32.
        progress: advances by one for each measurement.

    Raises:
        EngineError: if the bandwidth cannot be measured.
    """
    libraries: tuple[Library, ...] = ("torch",) if on_gpu else ("numpy", "openvino")
    wanted = [
        Measurement(library, precision, threads, tf32)
        for precision in precisions
        for library in libraries
        if (library, precision) == ("numpy", "fp32") or library != "numpy"
    ]
    rates: list[MatrixRate] = []
    reasons: dict[EnginePrecision | None, str] = {}
    with progress.task("measuring this machine", len(wanted) + 1) as advance:
        bandwidth = _measured(Measurement(libraries[0], None, threads))
        advance(1)
        for measurement in wanted:
            found = _measured(measurement)
            advance(1)
            if isinstance(found, MeasuredRate):
                rates.append(found.rate)
            elif isinstance(found, NotMeasured):
                reasons[measurement.precision] = found.reason
    if not isinstance(bandwidth, MeasuredBandwidth):
        reason = bandwidth.reason if isinstance(bandwidth, NotMeasured) else "unexpected answer"
        raise EngineError(f"the memory bandwidth of this machine cannot be measured: {reason}")
    return joined(rates, bandwidth.bandwidth, reasons)


def joined(
    rates: Sequence[MatrixRate], bandwidth: MemoryBandwidth, reasons: dict[EnginePrecision | None, str]
) -> MachineLimits:
    """Keep the highest rate of each precision, and the reasons for precisions without one.

    Args:
        rates: all rates that were measured.
        bandwidth: the memory bandwidth.
        reasons: why a library gave no rate, by precision.
    """
    best: dict[EnginePrecision, MatrixRate] = {}
    for rate in sorted(rates, key=lambda rate: rate.gmac_per_second):
        best[rate.precision] = rate
    return MachineLimits(
        rates=tuple(best[name] for name in PRECISIONS if name in best),
        bandwidth=bandwidth,
        not_measured=tuple(
            f"{precision.upper()}: {reason}"
            for precision, reason in reasons.items()
            if precision is not None and precision not in best
        ),
    )


def _measured(measurement: Measurement) -> MeasuredRate | MeasuredBandwidth | NotMeasured:
    """Run a measurement in a process of its own."""
    threads = dict.fromkeys(_BLAS_THREADS, str(measurement.threads))
    try:
        with ChildProcess(_MODULE, environment=threads) as process:
            process.send(measurement)
            answer: MeasuredRate | MeasuredBandwidth | NotMeasured = process.receive(
                MeasuredRate | MeasuredBandwidth | NotMeasured, _PATIENCE_SECONDS
            )
            return answer
    except TimeoutError:
        return NotMeasured(f"no response within {_PATIENCE_SECONDS} s")
    except ProcessEndedError as error:
        return NotMeasured(str(error))


def _serve(owner: Owner) -> None:
    """Measure what the owner asks for, and send the result."""
    measurement: Measurement = owner.receive(Measurement)
    try:
        answer: Record = _run(measurement)
    except Exception as error:  # the owner reports it
        answer = NotMeasured(printable(str(error)))
    owner.send(answer)


def _run(wanted: Measurement) -> MeasuredRate | MeasuredBandwidth:
    if wanted.precision is None:
        on_gpu = wanted.library == "torch"
        return MeasuredBandwidth(
            limit_measurements.gpu_bandwidth() if on_gpu else limit_measurements.cpu_bandwidth(wanted.threads)
        )
    rates: dict[Library, Callable[[], MatrixRate]] = {
        "numpy": partial(limit_measurements.numpy_rate, wanted.threads),
        "openvino": partial(limit_measurements.openvino_rate, wanted.precision, wanted.threads),
        "torch": partial(limit_measurements.gpu_rate, wanted.precision, tf32=wanted.tf32),
    }
    return MeasuredRate(rates[wanted.library]())


if __name__ == "__main__":
    _serve(Owner())
