"""Soaks of a target's engines: runs without pauses for minutes, on the bundle's sample images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import asdict

from ccr_deploy.benchmarking.scenario_results import (
    SOAK_SCHEMA_VERSION,
    SoakResult,
)
from ccr_deploy.benchmarking.scenarios.drift import (
    LATENCY_LIMIT_PERCENT,
    MEMORY_LIMIT_PERCENT,
    THROUGHPUT_LIMIT_PERCENT,
    drift,
)
from ccr_deploy.benchmarking.scenarios.messages import RunSoak
from ccr_deploy.benchmarking.scenarios.soak import interval_seconds, run_soak
from ccr_deploy.benchmarking.scenarios.statistics import latencies
from ccr_deploy.core.progress import SILENT
from ccr_deploy.workflow.prepared_engines import SEED, PreparedEngines

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.engines.store import EngineStore


def soak_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    minutes: float,
    *,
    subject: Subject = "chain",
    precision: EnginePrecision | None = None,
    batch: int = 1,
    progress: Progress = SILENT,
) -> SoakResult:
    """Run a target's engines without pauses for some minutes. Missing engines are built first.

    Ctrl-C ends the run after the current interval, and the result contains what was measured.

    Args:
        bundle: bundle whose engines are run, on its sample images.
        target: name or TOML file of the target.
        store: engine store.
        minutes: how long to run.
        subject: the engines that run.
        precision: precision of the engines; None for those that were built last.
        batch: images per run.
        progress: advances by one for each second of the run.

    Raises:
        EngineError: if an engine cannot be built, loaded or run.
    """
    prepared = PreparedEngines.of(bundle, target, store, subject, precision)
    request = RunSoak(prepared.engines, batch, interval_seconds(minutes))
    run = run_soak(request, subject, minutes, progress)
    last = run.intervals[-1]
    evidence = prepared.evidence(run.started, run.answers)
    return SoakResult(
        **asdict(prepared.engine_run(SOAK_SCHEMA_VERSION, run.started, batch, run.contention, evidence)),
        **vars(evidence),
        minutes=minutes,
        ended_early=run.ended_early,
        duration_seconds=last.seconds + last.duration_seconds,
        runs=len(run.samples_ms),
        latencies=latencies(run.samples_ms),
        samples_ms=run.kept_samples(SEED),
        intervals=tuple(run.intervals),
        latency_drift=drift([entry.p50_ms for entry in run.intervals], LATENCY_LIMIT_PERCENT),
        throughput_drift=drift(
            [entry.images_per_second for entry in run.intervals], THROUGHPUT_LIMIT_PERCENT
        ),
        memory_drift=drift([entry.memory_mib for entry in run.intervals], MEMORY_LIMIT_PERCENT),
    )
