"""The paper's Table 1 on this machine: the conventional chain and the three CCR models, one image per call.

The models have untrained weights, which speed does not depend on. Graphs and engines are in a temporary
folder, which is removed at the end.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ccr_deploy import CREATED_BY
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.table1_results import SCHEMA_VERSION, Table1, Table1Model
from ccr_deploy.benchmarking.table1_times import ModelTiming, table1_times
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.bundle.graph_files import add_graph
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.writer import writing_bundle
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import STAGES, SUBJECT_STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import MissingExtraError, WrongUsageError
from ccr_deploy.export.description import describe_model
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import PAPER_PRESETS, PRESETS
from ccr_deploy.quantization import model_optimizer
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.fp16 import to_fp16
from ccr_deploy.targets.schema import GPU_REFERENCE_TARGET, REFERENCE_TARGET, load_target
from ccr_deploy.workflow.graphs import load_model
from ccr_deploy.workflow.pytorch_variants import EAGER, pytorch_gates, pytorch_variants
from ccr_deploy.workflow.timed_inputs import timed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.base import Backend
    from ccr_deploy.backends.options import BackendOptions
    from ccr_deploy.benchmarking.answers import Expected
    from ccr_deploy.benchmarking.results import Subject, Timing
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.models.config import ModelConfig
    from ccr_deploy.workflow.timed_inputs import TimedInputs

ROUNDS = 5
"""Rounds by default, the fewest that `benchmark --compare` accepts too: intervals need several rounds.

Not more, because the conventional chain takes seconds for an image on a CPU."""
PAPER_MODELS: Mapping[str, ModelConfig] = {name: PRESETS[name] for name in PAPER_PRESETS}


@dataclass(frozen=True)
class TimedModel:
    """A candidate, and what it measures: a model or a part of it, in a runtime and precision.

    `items` are the images or packed codes ``uint8 [N, ...]`` that its inputs are made from, `expected` are
    the answers of PyTorch on the CPU for them.
    """

    candidate: Candidate
    items: npt.NDArray[np.uint8]
    expected: Expected
    model: str
    part: Subject
    runtime: str
    precision: EnginePrecision


def measure_table1(
    target: str,
    *,
    rounds: int = ROUNDS,
    models: Mapping[str, ModelConfig] = PAPER_MODELS,
    precisions: Sequence[EnginePrecision] | None = None,
    progress: Progress = SILENT,
) -> Table1:
    """Time the models of the paper's Table 1, and count their parameters and multiply-accumulates.

    All of them run in PyTorch eager and as engines of the target. The encoders and classifiers of the CCR
    models are timed apart too.

    Args:
        target: name or TOML file of the target.
        rounds: number of rounds; each round times every candidate once.
        models: the conventional chain, then CCR models with its image size and T, by preset.
        precisions: precisions of the engines; None for FP32 and, if the target computes in it on this
            machine, FP16.
        progress: advances by one for each model and each round.

    Raises:
        WrongUsageError: if the target is PyTorch.
        MissingExtraError: if the packages of the export are not installed.
        EngineError: if an engine cannot be built, loaded or run.
    """
    loaded = load_target(target)
    if loaded.is_reference:
        raise WrongUsageError(f"target {target} is PyTorch, which is timed anyway: choose another target")
    backend = make_backend(loaded.options)
    backend.check_runs_here()
    left_out: list[str] = []
    if precisions is None:
        precisions = _native_precisions(backend, left_out)
    threads = thread_count(loaded.options.threads)
    contention = [watch_start()]
    machine = machine_state(with_gpu=loaded.uses_gpu, start=contention[0])
    with tempfile.TemporaryDirectory() as name:
        entries = Preparation(target, Path(name), precisions).timed_models(models, progress)
        candidates = [entry.candidate for entry in entries]
        items = {entry.candidate.name: entry.items for entry in entries}
        run = run_interleaved("chain", candidates, batch=1, rounds=rounds, items=items, progress=progress)
    contention.append(run.contention)
    expected = {entry.candidate.name: entry.expected for entry in entries}
    parts = {entry.candidate.name: entry.part for entry in entries}
    measured = [
        replace(timing, subject=parts[timing.candidate])
        for timing in timings("chain", run.samples, 1, expected)
    ]
    reasons = unreliable_reasons(threads, contention, measured)
    baseline = next(iter(models))
    config = models[baseline]
    return Table1(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        target=target,
        image_height=config.image_height,
        image_width=config.image_width,
        iterations=config.iterations,
        threads=threads,
        rounds=rounds,
        machine=machine,
        models=tuple(_counted(name, config) for name, config in models.items()),
        times=table1_times(_timed(entries, measured), baseline, EAGER, reliable=not reasons),
        left_out=(*left_out, *run.left_out),
        reliable=not reasons,
        unreliable_reasons=reasons,
        contention=tuple(contention),
    )


def _native_precisions(backend: Backend, left_out: list[str]) -> list[EnginePrecision]:
    """Return FP32, and FP16 if the backend computes in it on this machine; else add why not."""
    if "fp16" not in backend.native_precisions():
        left_out.append(f"FP16: {backend.title} does not compute in FP16 on this device")
        return ["fp32"]
    try:
        model_optimizer.check_installed()
    except MissingExtraError as error:
        left_out.append(f"FP16: {error}")
        return ["fp32"]
    return ["fp32", "fp16"]


@dataclass(frozen=True)
class Preparation:
    """Exports models to bundles in a folder, and builds their engines for a target."""

    target: str
    folder: Path
    precisions: Sequence[EnginePrecision]

    def timed_models(self, models: Mapping[str, ModelConfig], progress: Progress) -> list[TimedModel]:
        """Return every candidate of the conventional chain, the first of `models`, and of the CCR models."""
        baseline, *others = models
        found: list[TimedModel] = []
        with progress.task("exporting and building", len(others)) as advance:
            for name in others:
                # A bundle needs a CCR model; the first one has the conventional chain in addition.
                is_first = name == others[0]
                bundle = self._exported(name, models[name], models[baseline] if is_first else None)
                inputs = timed_inputs(bundle, self._store)
                if is_first:
                    found.extend(self._candidates(bundle, inputs, baseline, "chain", ("baseline",)))
                for part, stages in SUBJECT_STAGES.items():
                    # The encoder is the same in all CCR models.
                    if is_first or part != "encoder":
                        found.extend(self._candidates(bundle, inputs, name, part, stages))
                advance(1)
        return found

    @property
    def _store(self) -> EngineStore:
        return EngineStore(self.folder / "engines")

    def _exported(self, name: str, config: ModelConfig, conventional: ModelConfig | None) -> Bundle:
        """Export a model, in FP16 too if it is among the precisions."""
        with_fp16 = "fp16" in self.precisions
        bundle = export_bundle(
            untrained_checkpoint(config),
            self.folder / name,
            schedules=(load_target(self.target).schedule,),
            baseline=untrained_checkpoint(conventional) if conventional else None,
            converters=CONVERTERS if with_fp16 else None,
        )
        return _with_fp16_baseline(bundle) if conventional and with_fp16 else bundle

    def _candidates(
        self, bundle: Bundle, inputs: TimedInputs, model: str, part: Subject, stages: Sequence[Stage]
    ) -> Iterator[TimedModel]:
        """Build the engines of stages that run one after the other; chains run in PyTorch eager too."""
        target = load_target(self.target)

        def _timed(
            factory: EngineFactory, options: BackendOptions, runtime: str, gates: Sequence[EnginePrecision]
        ) -> TimedModel:
            precision = factory.precision(stages[0])
            paths = tuple((factory.build(stage)[0].path, precision) for stage in stages)
            name = f"{model} {part}, {runtime} {precision}"
            candidate = Candidate(name, runtime != EAGER, options, paths)
            expected = inputs.expected(stages, gates, bundle)
            return TimedModel(candidate, inputs.items(part), expected, model, part, runtime, precision)

        if part == "chain":
            reference = GPU_REFERENCE_TARGET if target.uses_gpu else REFERENCE_TARGET
            variants = pytorch_variants(stages, on_gpu=target.uses_gpu, threads=target.options.threads)
            factory = EngineFactory(bundle, reference, self._store)
            yield _timed(factory, variants[EAGER], EAGER, pytorch_gates(on_gpu=target.uses_gpu))
        for precision in self.precisions:
            factory = EngineFactory(bundle, self.target, self._store, dict.fromkeys(STAGES, precision))
            yield _timed(factory, target.options, target.backend, (precision,))


def _with_fp16_baseline(bundle: Bundle) -> Bundle:
    """Add the FP16 graph of the conventional chain, which `export` omits because nobody deploys it."""
    graph = bundle.graph("baseline", "fp32", None)
    shape = bundle.manifest.input_shapes("baseline")["image"]
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    converted = to_fp16(load_model(bundle, graph), {"image": image})
    with writing_bundle(bundle.path) as writer:
        added = add_graph(writer, converted, "baseline", "fp16", None)
        manifest = replace(bundle.manifest, graphs=(*bundle.manifest.graphs, added))
        writer.commit(manifest)
    return Bundle(bundle.path, manifest)


def _timed(entries: Sequence[TimedModel], measured: Sequence[Timing]) -> list[ModelTiming]:
    found = {timing.candidate: timing for timing in measured}
    return [
        ModelTiming(entry.model, entry.part, entry.runtime, entry.precision, found[entry.candidate.name])
        for entry in entries
    ]


def _counted(name: str, config: ModelConfig) -> Table1Model:
    """Count the parameters and multiply-accumulates of a model."""
    description = describe_model(name, config)
    return Table1Model(
        model=name,
        parameters=description.parameters,
        encoder_macs=description.encoder_macs,
        classifier_macs=description.classifier_macs,
        paper=PAPER_TABLE_1[name],
    )
