"""Build: missing calibration, engines, and a verdict on whether a lower precision is faster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.interleaving import run_interleaved, timings
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.core.precisions import CALIBRATED, PRECISIONS
from ccr_deploy.core.progress import SILENT
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.verdict import (
    CandidateTiming,
    PrecisionCandidate,
    RefusedPrecision,
    Verdict,
    fastest_within_budget,
    without_speedup,
)
from ccr_deploy.errors import EngineError, WrongUsageError
from ccr_deploy.workflow.doctor import obstacle
from ccr_deploy.workflow.engines import built_precisions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine, EngineStore

ROUNDS = 5
"""Fewer than in `benchmark`, because `build-engine` only has to find out which precision is faster."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine, whether it was built now or reused, and the verdict if its precision was compared now."""

    engine: Engine
    built_now: bool
    verdict: Verdict | None = None


def build_engines(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    stages: Sequence[Stage],
    *,
    precision: EnginePrecision | Literal["auto"] | None = None,
    images: Path | None = None,
    accuracy_budget_points: float = 1.0,
    rebuild: bool = False,
    timing: bool = True,
    progress: Progress = SILENT,
) -> list[BuiltEngine]:
    """Build stages of a bundle for a target; time engines of a lower precision against a higher one.

    Engines that cannot run on this machine are built but not timed. If the timing is unreliable, the verdict
    says so.

    Args:
        bundle: bundle to build from.
        target: name or TOML file of the target.
        store: engine store to add the engines to.
        stages: stages to build.
        precision: precision of encoder and classifier; None for the target's. ``auto`` builds every
            precision that this machine supports natively and the bundle has graphs for, and keeps for each
            stage the fastest one within the accuracy budget. A precision that the backend cannot build is
            skipped, with the reason in the verdict.
        images: folder to calibrate on if the bundle has no quantized graphs.
        accuracy_budget_points: largest accepted loss of top-1 accuracy, in percentage points.
        rebuild: whether to build engines that the store already has.
        timing: whether to time the engines; without it, existing verdicts are kept.
        progress: advances with each build and round.

    Raises:
        WrongUsageError: if a graph, or for ``auto`` the record of accuracy, is missing and `images` is None;
            or if ``auto`` is combined with ``timing=False``.
        EngineError: if a requested engine cannot be built; for ``auto``, if no engine can be built, is
            within the budget, or can run on this machine.
    """
    if precision == "auto" and not timing:
        raise WrongUsageError(
            "--auto chooses by timing: remove --no-timing, or choose a precision such as --int8"
        )
    names = stage_precisions(precision) if precision and precision != "auto" else None
    factory = EngineFactory(bundle, target, store, names)
    asked_for = [PRECISIONS[factory.precision(stage)] for stage in stages]
    lacks_graphs = any(row.is_calibrated and not bundle.has_precision(row.graph) for row in asked_for)
    if precision == "auto":
        factory.backend.check_runs_here()
    if precision == "auto" or lacks_graphs:
        bundle = _calibrated(bundle, images, progress)
        factory = EngineFactory(bundle, target, store, names)
    calibration = bundle.manifest.calibration
    recorded = {entry.precision: entry for entry in calibration.accuracies} if calibration else {}
    high_precision = calibration.high_precision if calibration else ()
    auto_precisions = [
        entry
        for entry in built_precisions(bundle, factory)
        if precision == "auto" and (entry == "fp32" or entry in recorded)
    ]
    is_timed = timing and not obstacle(factory.backend.check_runs_here)
    built = []
    for stage in stages:
        asked = factory.precision(stage)
        if stage == "baseline" or (asked == "fp32" and not auto_precisions):
            built.append(BuiltEngine(*factory.build(stage, rebuild=rebuild, progress=progress)))
            continue
        compared = auto_precisions or (
            (_compared_with(bundle, factory, asked), asked) if is_timed else (asked,)
        )
        required = None if auto_precisions else asked
        entries, refused = _build_each(
            factory, stage, compared, required=required, rebuild=rebuild, progress=progress
        )
        if not timing and entries[asked].engine.sidecar.verdict:
            built.append(replace(entries[asked], verdict=entries[asked].engine.sidecar.verdict))
            continue
        timed, unreliable = _timed(factory, stage, entries, progress) if is_timed else ({}, ())
        candidates = tuple(
            PrecisionCandidate(precision=entry, timing=timed.get(entry), accuracy=recorded.get(entry))
            for entry in entries
        )
        kept = (
            fastest_within_budget(candidates, accuracy_budget_points).precision if auto_precisions else asked
        )
        verdict = Verdict(
            precision=kept,
            accuracy_budget_points=accuracy_budget_points,
            high_precision=high_precision if PRECISIONS[kept].is_calibrated else (),
            candidates=tuple(map(without_speedup, candidates)) if unreliable else candidates,
            refused=refused,
            unreliable_reasons=unreliable,
        )
        engine = store.add_verdict(entries[kept].engine, verdict)
        built.append(BuiltEngine(engine, entries[kept].built_now, verdict))
    sidecars = [entry.engine.sidecar for entry in built if entry.engine.sidecar.key.stage != "baseline"]
    chosen = {sidecar.key.stage: sidecar.origin.resolved_target for sidecar in sidecars}
    store.choose(bundle, target, chosen)
    return built


def _calibrated(bundle: Bundle, images: Path | None, progress: Progress) -> Bundle:
    """Return the bundle with calibrated graphs and a record of accuracy; calibrate it if they are missing."""
    calibration = bundle.manifest.calibration
    lacking = [PRECISIONS[name].label for name in CALIBRATED if not bundle.has_precision(name)]
    if calibration and calibration.accuracies and not lacking:
        return bundle
    if images is None:
        missing = f"{' and '.join(lacking)} graphs" if lacking else "record of accuracy"
        raise WrongUsageError(
            f"{bundle.path}: has no {missing}: run ccr-deploy calibrate {bundle.path} --images DIR "
            "on the workstation, or add --images DIR to this command"
        )
    from ccr_deploy.quantization.recipe import CalibrationRecipe
    from ccr_deploy.workflow.calibrate import calibrate_bundle

    return calibrate_bundle(bundle, images, CalibrationRecipe(), progress=progress).bundle


def _compared_with(bundle: Bundle, factory: EngineFactory, precision: EnginePrecision) -> EnginePrecision:
    """Return the precision to time another against: the first in its row that is possible, else FP32."""
    built = built_precisions(bundle, factory)
    return next((other for other in PRECISIONS[precision].compared_with if other in built), "fp32")


def _build_each(
    factory: EngineFactory,
    stage: Stage,
    precisions: Sequence[EnginePrecision],
    *,
    required: EnginePrecision | None,
    rebuild: bool,
    progress: Progress,
) -> tuple[dict[EnginePrecision, BuiltEngine], tuple[RefusedPrecision, ...]]:
    """Build a stage in several precisions; return the engines, and the precisions that failed.

    Raises:
        EngineError: if the `required` precision cannot be built; without one, if none can.
    """
    built, refused = {}, []
    for precision in precisions:
        try:
            own = factory.with_precision(precision)
            built[precision] = BuiltEngine(*own.build(stage, rebuild=rebuild, progress=progress))
        except EngineError as error:  # noqa: PERF203 -- a build takes seconds
            is_last_chance = required is None and not built and precision == precisions[-1]
            if precision == required or is_last_chance:
                raise
            refused.append(RefusedPrecision(precision=precision, reason=str(error)))
    return built, tuple(refused)


def _timed(
    factory: EngineFactory, stage: Stage, entries: Mapping[EnginePrecision, BuiltEngine], progress: Progress
) -> tuple[dict[EnginePrecision, CandidateTiming], tuple[str, ...]]:
    """Time a stage's engines, interleaved, at batch 1; return timings and reasons why they are unreliable."""
    options = factory.target.options
    candidates = [
        Candidate(precision, False, options, ((entry.engine.path, precision),))
        for precision, entry in entries.items()
    ]
    subject: Subject = "classifier" if stage == "classifier" else "encoder"
    run = run_interleaved(subject, candidates, batch=1, rounds=ROUNDS, progress=progress)
    found = timings(subject, run.samples, 1)
    timed = {
        precision: CandidateTiming(timing.latency_ms_p50, timing.speedup, timing.speedup_interval)
        for precision, timing in zip(entries, found, strict=True)
    }
    return timed, unreliable_reasons(thread_count(options.threads), [run.contention], found)
