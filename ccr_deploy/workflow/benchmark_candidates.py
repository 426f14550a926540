"""What `benchmark` times: PyTorch, the target's engines, and the other graphs of the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.core.stages import SUBJECT_STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import EngineError
from ccr_deploy.targets.schema import GPU_REFERENCE_TARGET, REFERENCE_TARGET
from ccr_deploy.workflow.engines import built_precisions
from ccr_deploy.workflow.pytorch_variants import EAGER, pytorch_gates, pytorch_variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.backends.options import BackendOptions
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Schedule, Stage


@dataclass(frozen=True)
class TimedStages:
    """A candidate with the stages that it runs, and the precisions whose gates its answers have to pass."""

    candidate: Candidate
    stages: tuple[Stage, ...]
    gates: tuple[EnginePrecision, ...]


def benchmark_candidates(
    bundle: Bundle, factory: EngineFactory, left_out: list[str]
) -> dict[Subject, list[TimedStages]]:
    """Build the engines of all candidates; return them by what they run, PyTorch eager first.

    Args:
        bundle: bundle of the engines.
        factory: builds the target's engines.
        left_out: receives why a candidate could not be built.
    """
    chain = _candidates_of(bundle, factory, *SUBJECT_STAGES["chain"])
    if bundle.manifest.baseline:
        eager = _pytorch(bundle, factory, "baseline")[0]
        named = replace(eager.candidate, name=f"conventional, {EAGER}")
        chain.append(TimedStages(named, eager.stages, eager.gates))
        chain.append(_candidate(f"conventional, {factory.target.backend}", factory, "baseline"))
    return {
        "encoder": [
            *_candidates_of(bundle, factory, "encoder"),
            *_other_schedules(bundle, factory, left_out),
        ],
        "classifier": _candidates_of(bundle, factory, "classifier"),
        "chain": chain,
    }


def _candidates_of(bundle: Bundle, factory: EngineFactory, *stages: Stage) -> list[TimedStages]:
    """Return PyTorch, then the target's engines, then the other precisions."""
    library = factory.target.backend
    own = list(dict.fromkeys(factory.precision(stage) for stage in stages))
    order = f" {factory.target.schedule}" if stages == ("encoder",) else ""
    target = _candidate(f"{library} {' + '.join(own)}{order}", factory, *stages, is_target=True)
    others = [
        _candidate(f"{library} {precision}{order}", factory.with_precision(precision), *stages)
        for precision in built_precisions(bundle, factory)
        if own != [precision]
    ]
    return [*_pytorch(bundle, factory, *stages), target, *others]


def _pytorch(bundle: Bundle, factory: EngineFactory, *stages: Stage) -> list[TimedStages]:
    """Return PyTorch eager, and on a GPU its other variants, which this machine may lack tools for."""
    on_gpu = factory.target.uses_gpu
    reference = EngineFactory(bundle, GPU_REFERENCE_TARGET if on_gpu else REFERENCE_TARGET, factory.store)
    variants = pytorch_variants(stages, on_gpu=on_gpu, threads=factory.target.options.threads)
    gates = pytorch_gates(on_gpu=on_gpu)
    return [
        _candidate(name, reference, *stages, options=options, is_optional=name != EAGER, gates=gates)
        for name, options in variants.items()
    ]


def _other_schedules(bundle: Bundle, factory: EngineFactory, left_out: list[str]) -> Iterator[TimedStages]:
    """Yield the target's encoder in the other schedules of the bundle."""
    name = f"{factory.target.backend} {factory.precision('encoder')}"
    own = factory.graph_record("encoder")
    for graph in bundle.manifest.graphs:
        if (graph.stage, graph.precision) != (own.stage, own.precision) or graph.schedule == own.schedule:
            continue
        try:
            yield _candidate(f"{name} {graph.schedule}", factory, "encoder", schedule=graph.schedule)
        except EngineError as error:  # the target's own schedule may still work
            left_out.append(str(error))


def _candidate(
    name: str,
    factory: EngineFactory,
    *stages: Stage,
    options: BackendOptions | None = None,
    schedule: Schedule | None = None,
    is_target: bool = False,
    is_optional: bool = False,
    gates: tuple[EnginePrecision, ...] = (),
) -> TimedStages:
    """Build the engines of stages that run one after the other.

    `options` replace the target's, and `gates` the engines' precisions.
    """
    engines = [factory.build(stage, schedule)[0] for stage in stages]
    paths = tuple((engine.path, engine.sidecar.key.precision) for engine in engines)
    candidate = Candidate(name, is_target, options or factory.target.options, paths, is_optional)
    return TimedStages(candidate, stages, gates or tuple(precision for _, precision in paths))
