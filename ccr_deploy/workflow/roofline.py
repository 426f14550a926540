"""The engines of a benchmark against the limits of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.machine_limits import measure_limits
from ccr_deploy.benchmarking.roofline import EngineWork, against_limits, floating_point, needed_precisions
from ccr_deploy.benchmarking.roofline_results import Roofline
from ccr_deploy.core.progress import SILENT
from ccr_deploy.engines.sidecar import read_sidecar
from ccr_deploy.workflow.graphs import load_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from ccr_deploy.backends.options import BackendOptions
    from ccr_deploy.benchmarking.results import Subject, Timing
    from ccr_deploy.benchmarking.worker import Candidate
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.graphs.work import GraphWork

_HALF_BYTES = 2


@dataclass(frozen=True)
class CandidateWork:
    """The work of each candidate that runs graphs of a bundle, and the precisions of all their engines."""

    by_candidate: Mapping[tuple[Subject, str], Sequence[EngineWork]]
    precisions: Sequence[EnginePrecision]


def count_work(
    bundle: Bundle, candidates: Mapping[Subject, Sequence[Candidate]], options: BackendOptions, *, batch: int
) -> CandidateWork:
    """Count the work of the candidates that run graphs of a bundle.

    Args:
        bundle: the bundle.
        candidates: candidates of the benchmark by what they run.
        options: options of the target's backend.
        batch: images per run.

    Raises:
        BundleError: if a graph is damaged.
        MissingExtraError: if onnx-ir is not installed, which counts the work of a graph.
    """
    counter = _WorkCounter(bundle, batch, on_gpu=options.uses_gpu)
    works: dict[tuple[Subject, str], list[EngineWork]] = {}
    precisions: list[EnginePrecision] = []
    for subject, entries in candidates.items():
        for candidate in entries:
            found = [counter.count(path, precision) for path, precision in candidate.engines]
            known = [work for work in found if work is not None]
            if len(known) == len(found):  # PyTorch runs no graph
                works[subject, candidate.name] = known
                precisions.extend(precision for _, precision in candidate.engines)
    return CandidateWork(works, precisions)


def measure_roofline(
    work: CandidateWork,
    timings: Iterable[Timing],
    options: BackendOptions,
    *,
    threads: int,
    progress: Progress = SILENT,
) -> Roofline:
    """Measure the limits of this machine, and compare the candidates that run graphs of a bundle with them.

    Args:
        work: the work of these candidates.
        timings: times of all candidates.
        options: options of the target's backend.
        threads: number of threads of the engines.
        progress: advances by one for each measurement.

    Raises:
        EngineError: if the bandwidth cannot be measured.
    """
    limits = measure_limits(
        needed_precisions(work.precisions, on_gpu=options.uses_gpu),
        threads,
        on_gpu=options.uses_gpu,
        tf32=bool(getattr(options, "tf32", False)),
        progress=progress,
    )
    return Roofline(
        threads=threads,
        matrix_rates=limits.rates,
        bandwidth=limits.bandwidth,
        not_measured=limits.not_measured,
        engines=tuple(
            against_limits(timing, work.by_candidate[timing.subject, timing.candidate], limits)
            for timing in timings
            if (timing.subject, timing.candidate) in work.by_candidate
        ),
    )


class _WorkCounter:
    """Counts the work of each graph once."""

    def __init__(self, bundle: Bundle, batch: int, *, on_gpu: bool) -> None:
        self._bundle = bundle
        self._batch = batch
        self._on_gpu = on_gpu
        self._graphs = {graph.file.sha256: graph for graph in bundle.manifest.graphs}
        self._counted: dict[tuple[str, int], GraphWork] = {}

    def count(self, engine: Path, precision: EnginePrecision) -> EngineWork | None:
        """Return the work of an engine; None if it was not built from a graph."""
        graph = self._graphs.get(read_sidecar(engine).key.graph_sha256 or "")
        if graph is None:
            return None
        # A BF16 engine is built from the FP32 graph.
        float_bytes = _HALF_BYTES if precision == "bf16" else 4
        work = self._counted.get((graph.graph_hash, float_bytes)) or self._work(graph, float_bytes)
        self._counted[graph.graph_hash, float_bytes] = work
        return EngineWork(work, floating_point(precision, on_gpu=self._on_gpu))

    def _work(self, graph: GraphRecord, float_bytes: int) -> GraphWork:
        model = load_model(self._bundle, graph)  # raises the error that names the extra
        from ccr_deploy.graphs.work import graph_work

        return graph_work(model, self._batch, float_bytes=float_bytes)
