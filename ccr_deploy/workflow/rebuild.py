"""Build a target's engines several times, and compare the builds with each other and the reference."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy import CREATED_BY
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.answers import logits_of
from ccr_deploy.verification.golden import check_same_model, read_golden
from ccr_deploy.verification.rebuilds import (
    SCHEMA_VERSION,
    SHOWN_IMAGES,
    Build,
    ChainOutputs,
    Differences,
    RebuildReport,
    spread_of,
)
from ccr_deploy.verification.reference import GoldenReference
from ccr_deploy.workflow.engines import compared_factory
from ccr_deploy.workflow.golden import golden_images
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.reference import pytorch_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.interleaving import InterleavedRun
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Advance, Progress
    from ccr_deploy.core.stages import ChainStage, Stage
    from ccr_deploy.engines.store import Engine
    from ccr_deploy.verification.answers import Reference
    from ccr_deploy.verification.image_set import ImageSet

ROUNDS = 7
"""Rounds of the timing: fewer than in `benchmark`, because it only has to show large differences."""
INSTALLED = "installed"

Engines = dict["ChainStage", "Engine"]


def rebuild_and_compare(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    builds: int,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    golden: Path | None = None,
    progress: Progress = SILENT,
) -> RebuildReport:
    """Build the target's engines again, run each build on the same images, and time all builds.

    The new engines are built in temporary stores, each without the caches of another build. The engines in
    the engine store stay as they are.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store with the installed engines.
        builds: number of new builds.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for all.
        golden: golden file with images and the reference's results, instead of PyTorch and `images`.
        progress: advances by images and rounds.

    Raises:
        WrongUsageError: if an engine was not built.
        EngineError: if an engine cannot be built, loaded or run.
        BundleError: if the bundle is damaged.
        GoldenError: if the golden file is damaged, or was written for another model.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if a package is not installed.
    """
    factory = compared_factory(bundle, target, store, precision)
    factory.backend.check_runs_here()
    installed = {stage: factory.find(stage) for stage in CHAIN_STAGES}
    chosen, reference = _images_and_reference(bundle, store, images, samples, golden)
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-") as folder:
        engines: dict[str, Engines] = {INSTALLED: installed}
        for number in range(1, builds + 1):
            fresh = _in_other_store(factory, EngineStore(Path(folder) / f"build-{number}"))
            engines[f"build {number}"] = {
                stage: fresh.build(stage, progress=progress)[0] for stage in CHAIN_STAGES
            }
        total = len(chosen().names) * (1 + len(engines))
        with progress.task("running the builds", total) as advance:
            expected = _reference_outputs(reference, chosen(), advance)
            outputs = {name: _outputs(factory, own, chosen(), advance) for name, own in engines.items()}
        batch = max(_smallest_batch(factory, stage) for stage in CHAIN_STAGES)
        run = _timed(factory, engines, batch, progress)
    times = timings("chain", run.samples, batch)
    spread = spread_of(expected, outputs)
    last = chosen()
    return RebuildReport(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        bundle=printable(str(bundle.path)),
        target=target,
        precisions={stage: factory.precision(stage) for stage in CHAIN_STAGES},
        reference="golden" if golden else "pytorch",
        images=last.description,
        image_count=len(last.names),
        bits=8 * expected.codes.size,
        builds=tuple(
            _build(name, own, spread.builds[name], time.latency_ms_p50)
            for (name, own), time in zip(engines.items(), times, strict=True)
        ),
        bits_that_vary=spread.bits_that_vary,
        answers_that_vary=len(spread.images_that_vary),
        images_that_vary=tuple(last.names[index] for index in spread.images_that_vary[:SHOWN_IMAGES]),
        batch=batch,
        unreliable_reasons=unreliable_reasons(
            thread_count(factory.target.options.threads), [run.contention], times
        ),
    )


def _build(name: str, engines: Engines, found: Differences, latency_ms_p50: float) -> Build:
    return Build(
        name=name,
        engine_sha256={stage: engine.sidecar.engine_sha256 for stage, engine in engines.items()},
        build_seconds=sum(engine.sidecar.build_seconds for engine in engines.values()),
        flipped_bits=found.flipped_bits,
        changed_answers=found.changed_answers,
        bits_unlike_installed=found.bits_unlike_installed,
        answers_unlike_installed=found.answers_unlike_installed,
        latency_ms_p50=latency_ms_p50,
    )


def _smallest_batch(factory: EngineFactory, stage: ChainStage) -> int:
    batch = factory.resolved(stage).batch
    return batch.smallest if batch else 1


def _images_and_reference(
    bundle: Bundle, store: EngineStore, images: Path | None, samples: int | None, golden: Path | None
) -> tuple[Callable[[], ImageSet], Reference]:
    """Return a function that returns the images from the first one on, and the reference."""
    if golden is None:
        return lambda: image_set(bundle, images, samples), pytorch_reference(
            bundle, AnswerCache(store.path), store
        )
    read = read_golden(golden)
    check_same_model(read.record, bundle.manifest, golden)
    return lambda: golden_images(read, golden), GoldenReference(read)


def _in_other_store(factory: EngineFactory, store: EngineStore) -> EngineFactory:
    precisions: dict[Stage, EnginePrecision] = {stage: factory.precision(stage) for stage in CHAIN_STAGES}
    return EngineFactory(factory.bundle, factory.target_name, store, precisions)


def _reference_outputs(reference: Reference, images: ImageSet, advance: Advance) -> ChainOutputs:
    def outputs() -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
        for batch in images.batches:
            answers, _ = reference.answer(batch)
            yield answers.codes, answers.logits["chain"]
            advance(len(batch))

    with ExitStack() as stack:
        for runner in reference.runners:
            stack.enter_context(runner)
        return _collected(outputs())


def _outputs(
    factory: EngineFactory, engines: Mapping[ChainStage, Engine], images: ImageSet, advance: Advance
) -> ChainOutputs:
    """Run one build alone: the engines of all builds together may not fit into memory."""
    with ExitStack() as stack:
        encoder, classifier = (stack.enter_context(factory.load(engines[stage])) for stage in CHAIN_STAGES)

        def outputs() -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
            for batch in images.batches:
                codes = encoder.infer({"image": batch})["code"].astype(np.uint8, copy=False)
                yield codes, logits_of(classifier, "code", codes)
                advance(len(batch))

        return _collected(outputs())


def _collected(
    outputs: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]],
) -> ChainOutputs:
    """Keep the codes and the classes, but not the logits, of all batches."""
    codes, classes = zip(*((codes, logits.argmax(axis=1)) for codes, logits in outputs), strict=True)
    return ChainOutputs(np.concatenate(codes), np.concatenate(classes))


def _timed(
    factory: EngineFactory, builds: Mapping[str, Engines], batch: int, progress: Progress
) -> InterleavedRun:
    candidates: Sequence[Candidate] = [
        Candidate(
            name,
            name == INSTALLED,
            factory.target.options,
            tuple((engine.path, engine.sidecar.key.precision) for engine in engines.values()),
        )
        for name, engines in builds.items()
    ]
    return run_interleaved("chain", candidates, batch=batch, rounds=ROUNDS, progress=progress)
