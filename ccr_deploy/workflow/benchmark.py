"""Benchmark: the target's engines against PyTorch and against each other."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy import CREATED_BY
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.answers import wrong_answers
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.environment import changes, read_environment
from ccr_deploy.benchmarking.interleaving import fastest_pytorch, run_interleaved, timings
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons, without_speedups
from ccr_deploy.benchmarking.results import SCHEMA_VERSION as BENCHMARK_SCHEMA_VERSION
from ccr_deploy.benchmarking.results import BenchmarkReport, FastestPyTorch, Subject, Timing
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import SUBJECT_STAGES
from ccr_deploy.errors import CcrDeployError, MachineBusyError
from ccr_deploy.workflow.benchmark_candidates import TimedStages, benchmark_candidates
from ccr_deploy.workflow.end_to_end import check_images, measure_end_to_end
from ccr_deploy.workflow.engines import compared_factory
from ccr_deploy.workflow.pytorch_variants import pytorch_variants
from ccr_deploy.workflow.roofline import count_work, measure_roofline
from ccr_deploy.workflow.timed_inputs import timed_inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.interleaving import InterleavedRun
    from ccr_deploy.benchmarking.results import Contention
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.engines.store import EngineStore


def benchmark_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    precision: EnginePrecision | None = None,
    batch: int = 1,
    rounds: int = 15,
    require_idle: bool = False,
    end_to_end: bool = False,
    images: Path | None = None,
    roofline: bool = False,
    progress: Progress = SILENT,
) -> BenchmarkReport:
    """Time PyTorch, the target's engines and the other graphs of the bundle on the same backend.

    PyTorch runs on the target's device: eager, and on a GPU with `torch.compile` and in FP16 as a CUDA graph
    too. The other graphs are the encoder's other schedules and the precisions that this machine supports
    natively. Missing engines are built first. If the run is unreliable, the report says why and has no
    speed-ups.

    The inputs are sample images of the bundle, and the outputs of timed runs are compared with those of the
    checkpoint in PyTorch. A candidate with wrong answers is left out; if it is PyTorch or the target's
    engine, the run is unreliable. If the measurement of `end_to_end` or `roofline` fails after the rounds,
    the report says why.

    Args:
        bundle: bundle whose engines are timed.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of the target's engines; None for the engines that were built last.
        batch: images per run.
        rounds: number of rounds; each round times every candidate once.
        require_idle: whether to refuse to start on a busy machine.
        end_to_end: whether to measure the chain from image file to label too.
        images: folder of image files for that; None for the bundle's sample images as JPEG.
        roofline: whether to measure the limits of this machine too, and compare the engines with them.
        progress: advances by one for each round.

    Raises:
        EngineError: if a candidate cannot be built, loaded or run, or an engine changes in the meantime.
        ImageError: if `images` has no images, or the first one cannot be decoded.
        MissingExtraError: if `roofline` is set and onnx-ir is not installed.
        MachineBusyError: if `require_idle` is set and the machine is busy before the start.
    """
    factory = compared_factory(bundle, target, store, precision)
    factory.backend.check_runs_here()
    if end_to_end and images:
        check_images(images)
    threads = thread_count(factory.target.options.threads)
    contention = [watch_start()]
    if require_idle and (reasons := unreliable_reasons(threads, contention)):
        raise MachineBusyError(
            f"the benchmark was not started: {'; '.join(reasons)}: stop other work on this machine "
            "and run the benchmark again"
        )
    machine = machine_state(with_gpu=factory.target.uses_gpu, start=contention[0])
    driver = machine.gpu_driver
    inputs = timed_inputs(bundle, store)
    found = _Found(contention)
    candidates = benchmark_candidates(bundle, factory, found.left_out)
    timed = {subject: [entry.candidate for entry in entries] for subject, entries in candidates.items()}
    work = count_work(bundle, timed, factory.target.options, batch=batch) if roofline else None
    before = read_environment(driver)
    for subject, entries in candidates.items():
        run = run_interleaved(
            subject,
            timed[subject],
            batch=batch,
            rounds=rounds,
            items=dict.fromkeys((entry.candidate.name for entry in entries), inputs.items(subject)),
            progress=progress,
        )
        expected = {
            entry.candidate.name: inputs.expected(entry.stages, entry.gates, bundle) for entry in entries
        }
        measured = _with_engine_bytes(timings(subject, run.samples, batch, expected), entries)
        pytorch = pytorch_variants(SUBJECT_STAGES[subject], on_gpu=factory.target.uses_gpu)
        found.add(subject, run, measured, pytorch)
    from_file_to_label = None
    if end_to_end:
        with found.left_out_if_it_fails("--end-to-end"):
            from_file_to_label, observed = measure_end_to_end(
                factory, rounds=rounds, images=images, progress=progress
            )
            found.contention.append(observed)
    limits = None
    if work:
        with found.left_out_if_it_fails("--roofline"):
            limits = measure_roofline(
                work, found.timings, factory.target.options, threads=threads, progress=progress
            )
    after = read_environment(driver)
    reasons = (*unreliable_reasons(threads, found.contention, found.timings), *changes(before, after))
    model = bundle.manifest.model
    return BenchmarkReport(
        schema_version=BENCHMARK_SCHEMA_VERSION,
        created_by=CREATED_BY,
        bundle=printable(str(bundle.path)),
        contract_id=bundle.manifest.contract_id,
        weights_sha256=bundle.manifest.weights.sha256,
        model=model.summary,
        iterations=model.iterations,
        trained_iterations=bundle.manifest.trained_iterations,
        warnings=bundle.manifest.warnings,
        target=target,
        batch=batch,
        threads=threads,
        rounds=rounds,
        machine=machine,
        timings=without_speedups(found.timings) if reasons else tuple(found.timings),
        left_out=tuple(found.left_out),
        reliable=not reasons,
        unreliable_reasons=reasons,
        contention=tuple(found.contention),
        fastest_pytorch=() if reasons else tuple(found.fastest),
        environment_before=before,
        environment_after=after,
        end_to_end=from_file_to_label,
        roofline=limits,
    )


@dataclass
class _Found:
    """What was measured so far, and why parts are left out."""

    contention: list[Contention]
    timings: list[Timing] = field(default_factory=list)
    fastest: list[FastestPyTorch] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(
        self, subject: Subject, run: InterleavedRun, measured: Sequence[Timing], pytorch: Collection[str]
    ) -> None:
        """Add the timings of a subject, without those of candidates with wrong answers.

        Args:
            subject: stage or chain that was timed.
            run: the samples of all candidates.
            measured: their timings.
            pytorch: names of the candidates that are forms of PyTorch.
        """
        wrong = _wrong_answers(measured)
        self.timings.extend(timing for timing in measured if timing.candidate not in wrong)
        self.contention.append(run.contention)
        self.left_out.extend((*run.left_out, *wrong.values()))
        if compared := fastest_pytorch(subject, run.samples, set(pytorch) - wrong.keys()):
            self.fastest.append(compared)

    @contextmanager
    def left_out_if_it_fails(self, option: str) -> Iterator[None]:
        """Add an error in the body to what is left out: the rounds before it have a result."""
        try:
            yield
        except CcrDeployError as error:
            self.left_out.append(f"{option}: {error}")


def _with_engine_bytes(measured: Sequence[Timing], entries: Sequence[TimedStages]) -> list[Timing]:
    sizes = {
        entry.candidate.name: tuple(path.stat().st_size for path, _ in entry.candidate.engines)
        for entry in entries
    }
    return [replace(timing, engine_bytes=sizes[timing.candidate]) for timing in measured]


def _wrong_answers(measured: Sequence[Timing]) -> dict[str, str]:
    """Return why candidates are left out, by name, because their answers were wrong.

    The first candidate and the target's are not left out: without them there is no result.
    """
    return {
        timing.candidate: wrong_answers(f"{timing.subject}: {timing.candidate}", timing.answers)
        for timing in measured[1:]
        if timing.answers and not timing.answers.passed and not timing.is_target
    }
