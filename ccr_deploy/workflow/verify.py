"""Verification of a target's engines and graphs against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.progress import SILENT
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.answers import NO_MATRIX, PrecisionRunners
from ccr_deploy.verification.diagnosis import DIAGNOSED_IMAGES
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.verify import verify
from ccr_deploy.workflow.diagnosis import Verified, diagnosed
from ccr_deploy.workflow.engines import bundle_stages, compared_factory
from ccr_deploy.workflow.graphs import cached_graph_runner, graphs_computed_by
from ccr_deploy.workflow.images import few_images, image_set
from ccr_deploy.workflow.reference import (
    pytorch_reference,
    pytorch_reference_and_encoder,
    reference_computed_by,
)
from ccr_deploy.workflow.verified_engines import record_verification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage, Schedule, Stage
    from ccr_deploy.engines.store import Engine, EngineStore
    from ccr_deploy.verification.answers import Reference
    from ccr_deploy.verification.results import Level, VerificationReport


@dataclass(frozen=True)
class Prepared:
    """What a verification runs.

    `computed_by` says which libraries, on which processor, compute the reference and the graphs. `load_ways`
    returns new runners of every way but the reference.
    """

    reference: Reference
    computed_by: tuple[str, ...]
    load_ways: Callable[[], Mapping[Level, Mapping[Stage, Runner]]]
    engines: Mapping[Stage, Engine]
    graphs: Mapping[Stage, GraphRecord]
    limits: Mapping[Level, GateLimits]
    matrix: PrecisionRunners


def verify_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    changed_gates: Sequence[str] = (),
    with_matrix: bool = False,
    progress: Progress = SILENT,
) -> VerificationReport:
    """Compare PyTorch, graphs and the target's engines on the same images.

    The limits of the gates are those of the engines' lowest precision; for the FP32 graphs those of FP32. The
    outcome is recorded in the engines' sidecars. A run that was interrupted is resumed: the store keeps the
    results of its batches.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for all.
        changed_gates: limits that replace the default ones, each as ``name=value``.
        with_matrix: whether to run every encoder precision with every classifier precision, by their graphs.
        progress: advances by images.

    Raises:
        WrongUsageError: if an engine was not built, or a gate does not exist.
        EngineError: if an engine cannot be loaded or run.
        BundleError: if the bundle is damaged.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if a package is not installed.
    """
    listed = image_set(bundle, images, samples)
    prepared = prepare(
        bundle,
        target,
        store,
        precision=precision,
        changed_gates=changed_gates,
        with_matrix=with_matrix,
        cache=AnswerCache(store.path),
    )
    report = verify(
        bundle,
        listed,
        reference=prepared.reference,
        computed_by=prepared.computed_by,
        ways=prepared.load_ways(),
        engines=list(prepared.engines.values()),
        target=target,
        limits=prepared.limits,
        matrix=prepared.matrix,
        journals=store.path / "verify",
        progress=progress,
    )
    changed = {answer.name for answer in report.changed_answers}
    report = diagnosed(
        report,
        Verified(bundle, prepared.engines, prepared.graphs, prepared.limits, prepared.load_ways),
        lambda: few_images(bundle, images, samples, DIAGNOSED_IMAGES, changed),
        lambda: pytorch_reference_and_encoder(bundle, store),
        progress,
    )
    return record_verification(report, store, prepared.engines.values(), changed_gates)


def prepare(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    precision: EnginePrecision | None,
    changed_gates: Sequence[str],
    with_matrix: bool,
    cache: AnswerCache,
) -> Prepared:
    """Find the engines, and prepare the reference and the graphs.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the engines that were built last.
        changed_gates: limits that replace the default ones, each as ``name=value``.
        with_matrix: whether to load every precision of encoder and classifier.
        cache: cache of the answers of the reference and the graphs.
    """
    factory = compared_factory(bundle, target, store, precision)
    stages = bundle_stages(bundle)
    # First, so that a misspelled gate is reported before a missing engine.
    own = GateLimits.of([factory.precision(stage) for stage in stages], bundle).changed(changed_gates)
    engines = {stage: factory.find(stage) for stage in stages}
    graphs = {stage: factory.graph_record(stage) for stage in stages}
    fp32_graphs = {stage: bundle.graph(stage, "fp32", graph.schedule) for stage, graph in graphs.items()}
    limits: dict[Level, GateLimits] = {"graph": own, "engine": own}
    if fp32_graphs != graphs:
        limits = {"fp32-graph": GateLimits.of(["fp32"], bundle).changed(changed_gates), **limits}

    def load_graphs(records: Mapping[Stage, GraphRecord]) -> dict[Stage, Runner]:
        return {stage: cached_graph_runner(cache, bundle, graph) for stage, graph in records.items()}

    def load_ways() -> dict[Level, dict[Stage, Runner]]:
        # Graphs are loaded for their first batch, so that only engines are open if this fails.
        ways: dict[Level, dict[Stage, Runner]] = {"graph": load_graphs(graphs)}
        if fp32_graphs != graphs:
            ways = {"fp32-graph": load_graphs(fp32_graphs), **ways}
        return {**ways, "engine": factory.load_all(engines)}

    schedule = graphs["encoder"].schedule
    return Prepared(
        reference=pytorch_reference(bundle, cache, store),
        computed_by=(*reference_computed_by(), *graphs_computed_by()),
        load_ways=load_ways,
        engines=engines,
        graphs=graphs,
        limits=limits,
        matrix=_precision_runners(cache, bundle, schedule) if with_matrix else NO_MATRIX,
    )


def _precision_runners(cache: AnswerCache, bundle: Bundle, schedule: Schedule | None) -> PrecisionRunners:
    """Return runners of encoder and classifier in every precision that the bundle has graphs for."""
    rows = [row for row in PRECISIONS.values() if bundle.has_precision(row.emulated_graph)]

    def runners(stage: ChainStage, schedule: Schedule | None) -> dict[EnginePrecision, Runner]:
        graphs = {row.name: bundle.graph(stage, row.emulated_graph, schedule) for row in rows}
        return {
            precision: cached_graph_runner(cache, bundle, graph, precision)
            for precision, graph in graphs.items()
        }

    return PrecisionRunners(runners("encoder", schedule), runners("classifier", None))
