"""What spans stages: the engines of several targets, for `verify` and `benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy import __version__
from ccr_deploy.backends.base import thread_count
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.race import race, timings
from ccr_deploy.benchmarking.results import SCHEMA_VERSION as BENCHMARK_SCHEMA_VERSION
from ccr_deploy.benchmarking.results import BenchmarkReport, Subject, Timing
from ccr_deploy.benchmarking.worker import Competitor
from ccr_deploy.engine_factory import EngineFactory
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.images import list_images, load_images
from ccr_deploy.progress import SILENT
from ccr_deploy.target import REFERENCE_BACKEND, REFERENCE_TARGET, load_target
from ccr_deploy.verification.answers import BATCH, StageRunners
from ccr_deploy.verification.gates import Gates
from ccr_deploy.verification.verify import ImageSet, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.bundle import Bundle, Schedule, Stage
    from ccr_deploy.engine_store import EngineStore
    from ccr_deploy.progress import Progress
    from ccr_deploy.verification.results import VerificationReport


def bundle_stages(bundle: Bundle) -> tuple[Stage, ...]:
    """The stages that the bundle has graphs for."""
    return ("encoder", "classifier", "baseline") if bundle.manifest.baseline else ("encoder", "classifier")


def verify_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    images: Path | None = None,
    gates: Gates | None = None,
    progress: Progress = SILENT,
) -> VerificationReport:
    """Compares PyTorch, graphs and the target's engines on a folder's pictures or the bundle's samples.

    Raises:
        WrongUsageError: an engine was not built yet.
        EngineError, BundleError, ImageError, MissingExtraError: as their names say.
    """
    from ccr_deploy.backends.onnxruntime import OnnxRuntimeBackend
    from ccr_deploy.backends.pytorch import PyTorchRunner

    factory = _compared_factory(bundle, target, store)
    engines = {stage: factory.find(stage) for stage in bundle_stages(bundle)}
    image_set = _folder_images(bundle, images) if images else _sample_images(bundle)
    reference = EngineFactory(bundle, REFERENCE_TARGET, store)
    reference_runners = {stage: reference.load(reference.build(stage)[0]) for stage in engines}
    reference_encoder = reference_runners["encoder"]
    assert isinstance(reference_encoder, PyTorchRunner)
    graph_backend = OnnxRuntimeBackend()
    return verify(
        bundle,
        image_set,
        reference=StageRunners(**reference_runners),
        values_before_sign=reference_encoder.values_before_sign,
        graph=StageRunners(
            **{stage: graph_backend.load_graph(factory.graph_file(stage)) for stage in engines}
        ),
        engine=StageRunners(**{stage: factory.load(engine) for stage, engine in engines.items()}),
        engines=list(engines.values()),
        target=target,
        gates=gates or Gates(),
        progress=progress,
    )


def benchmark_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    batch: int = 1,
    rounds: int = 15,
    progress: Progress = SILENT,
) -> BenchmarkReport:
    """Times PyTorch eager, the target's engines, and the encoder's other schedules that the bundle has.

    Engines that the store lacks are built first.

    Raises:
        EngineError: one of them cannot be built, loaded or run.
    """
    machine = machine_state()
    reference = EngineFactory(bundle, REFERENCE_TARGET, store)
    factory = _compared_factory(bundle, target, store)
    found: list[Timing] = []
    for subject, competitors in _competitors(bundle, reference, factory).items():
        samples = race(competitors, batch=batch, rounds=rounds, progress=progress, title=f"timing: {subject}")
        found.extend(timings(subject, samples, batch))
    model = bundle.manifest.model
    return BenchmarkReport(
        schema_version=BENCHMARK_SCHEMA_VERSION,
        created_by=f"ccr-deploy {__version__}",
        bundle=str(bundle.path),
        contract_id=bundle.manifest.contract_id,
        weights_sha256=bundle.manifest.weights.sha256,
        model=f"{model.image_height}x{model.image_width}, T={model.iterations}, cut {model.classifier.cut}",
        target=target,
        batch=batch,
        threads=thread_count(load_target(target).options),
        rounds=rounds,
        machine=machine,
        timings=tuple(found),
    )


def _compared_factory(bundle: Bundle, target: str, store: EngineStore) -> EngineFactory:
    factory = EngineFactory(bundle, target, store)
    if factory.target.backend == REFERENCE_BACKEND:
        raise WrongUsageError(f"the target {target} is the reference itself: name the one to compare with it")
    return factory


def _competitors(
    bundle: Bundle, reference: EngineFactory, factory: EngineFactory
) -> dict[Subject, list[Competitor]]:
    schedules = [
        graph.schedule for graph in bundle.manifest.graphs if graph.stage == "encoder" and graph.schedule
    ]

    def competitor(
        name: str,
        maker: EngineFactory,
        *stages: Stage,
        schedule: Schedule | None = None,
        is_target: bool = False,
    ) -> Competitor:
        engines = tuple(maker.build(stage, schedule)[0].path for stage in stages)
        # The reference gets the target's threads, or the ratio would compare cores.
        return Competitor(name, is_target, maker.target.backend, factory.target.options, engines)

    engine = factory.target.backend
    chain = [
        competitor("PyTorch eager", reference, "encoder", "classifier"),
        competitor(engine, factory, "encoder", "classifier", is_target=True),
    ]
    if bundle.manifest.baseline:
        chain.append(competitor("conventional, PyTorch eager", reference, "baseline"))
        chain.append(competitor(f"conventional, {engine}", factory, "baseline"))
    return {
        "encoder": [
            competitor("PyTorch eager", reference, "encoder"),
            *(
                competitor(
                    f"{engine} {schedule}",
                    factory,
                    "encoder",
                    schedule=schedule,
                    is_target=schedule == factory.target.schedule,
                )
                for schedule in schedules
            ),
        ],
        "classifier": [
            competitor("PyTorch eager", reference, "classifier"),
            competitor(engine, factory, "classifier", is_target=True),
        ],
        "chain": chain,
    }


def _sample_images(bundle: Bundle) -> ImageSet:
    manifest = bundle.manifest
    paths = [bundle.file(sample.file) for sample in manifest.samples]
    return ImageSet(
        description="the bundle's samples",
        batches=_load_batches(bundle, paths),
        names=tuple(path.name for path in paths),
        labels=tuple(sample.label for sample in manifest.samples),
        groups=tuple(path.name for path in paths),
    )


def _folder_images(bundle: Bundle, folder: Path) -> ImageSet:
    items = list_images(folder, bundle.manifest.class_names, bundle.manifest.model.classifier.classes)
    return ImageSet(
        description=str(folder),
        batches=_load_batches(bundle, [item.path for item in items]),
        names=tuple(str(item.path.relative_to(folder)) for item in items),
        labels=tuple(item.label for item in items),
        groups=tuple(item.group for item in items),
    )


def _load_batches(bundle: Bundle, paths: Sequence[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    contract = bundle.manifest.contract
    for start in range(0, len(paths), BATCH):
        yield load_images(
            paths[start : start + BATCH], contract.preprocessing, contract.image_height, contract.image_width
        )
