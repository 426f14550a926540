"""Scenarios and soaks of a target's engines, on the bundle's sample images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import asdict

from ccr_deploy import __version__
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.answers import check_answers
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_answers, unreliable_reasons
from ccr_deploy.benchmarking.scenario_results import (
    SCENARIO_SCHEMA_VERSION,
    SOAK_SCHEMA_VERSION,
    EngineRun,
    ScenarioResult,
    ScenarioSettings,
    SoakResult,
)
from ccr_deploy.benchmarking.scenarios import loadgen, paced
from ccr_deploy.benchmarking.scenarios.agreement import OwnSummary, compare
from ccr_deploy.benchmarking.scenarios.drift import (
    LATENCY_LIMIT_PERCENT,
    MEMORY_LIMIT_PERCENT,
    THROUGHPUT_LIMIT_PERCENT,
    drift,
)
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.messages import Engines, Measured, PacedRounds, RunScenario, RunSoak
from ccr_deploy.benchmarking.scenarios.quotable import (
    STREAMS,
    TARGET_PERCENTILES,
    not_quotable_reasons,
    over_bound_percent,
)
from ccr_deploy.benchmarking.scenarios.scenario_run import run_scenario
from ccr_deploy.benchmarking.scenarios.soak import interval_seconds, run_soak
from ccr_deploy.benchmarking.scenarios.statistics import KEPT_SAMPLES, drawn, latencies, milliseconds
from ccr_deploy.benchmarking.timed_runs import fresh_input_ratio
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.timed_inputs import expected_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.benchmarking.answers import Answer
    from ccr_deploy.benchmarking.results import AnswerCheck, Contention, MachineState, Subject
    from ccr_deploy.benchmarking.scenarios.messages import Started
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.scenarios import Scenario
    from ccr_deploy.engines.store import EngineStore

MIN_DURATION_SECONDS = 10.0
FRAMES_PER_SECOND = 10.0
SEED = 0


def run_bundle_scenario(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    scenario: Scenario,
    *,
    subject: Subject = "chain",
    precision: EnginePrecision | None = None,
    batch: int = 1,
    min_duration: float = MIN_DURATION_SECONDS,
    rate: float | None = None,
    latency_bound: float | None = None,
    streams: int | None = None,
    by_loadgen: bool | None = None,
    progress: Progress = SILENT,
) -> ScenarioResult:
    """Run a scenario on a target's engines. Missing engines are built first.

    Args:
        bundle: bundle whose engines are run, on its sample images.
        target: name or TOML file of the target.
        store: engine store.
        scenario: how the queries arrive.
        subject: the engines that run.
        precision: precision of the engines; None for those that were built last.
        batch: largest number of images in one run.
        min_duration: shortest duration, in seconds.
        rate: queries or frames per second, for *server* and *paced*.
        latency_bound: longest latency of a query of *server*, in ms; None for no bound.
        streams: samples of a query of *multi-stream*; None for MLPerf's 8.
        by_loadgen: whether LoadGen issues the queries; None for whether it is installed.
        progress: advances by one for each second of the run.

    Raises:
        EngineError: if an engine cannot be built, loaded or run.
    """
    prepared = _Prepared.of(bundle, target, store, subject, precision)
    settings = ScenarioSettings(
        min_duration_seconds=min_duration,
        min_queries=1,
        samples_per_query={"multi-stream": streams or STREAMS, "offline": None}.get(scenario, 1),
        target_percentile=TARGET_PERCENTILES.get(scenario),
        rate_per_second=rate,
        latency_bound_ms=latency_bound,
        pool=prepared.engines.image_shape[0],
        seed=SEED,
    )
    with_loadgen = scenario != "paced" and (loadgen.is_installed() if by_loadgen is None else by_loadgen)
    request = RunScenario(prepared.engines, batch, scenario, settings, with_loadgen)
    run = run_scenario(request, subject, progress)
    evidence = prepared.evidence(run.started, run.answers)
    engine_run = prepared.engine_run(
        SCENARIO_SCHEMA_VERSION, run.started.version, batch, run.contention, evidence
    )
    return _result(engine_run, scenario, settings, run.measured, evidence)


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
    prepared = _Prepared.of(bundle, target, store, subject, precision)
    request = RunSoak(prepared.engines, batch, interval_seconds(minutes))
    run = run_soak(request, subject, minutes, progress)
    assert run.contention
    last = run.intervals[-1]
    evidence = prepared.evidence(run.started, run.answers)
    return SoakResult(
        **asdict(
            prepared.engine_run(SOAK_SCHEMA_VERSION, run.started.version, batch, run.contention, evidence)
        ),
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


@dataclass(frozen=True)
class _Evidence:
    """What shows that the engines computed each answer while they were timed, and the same as before."""

    fresh_input_ratio: float | None
    fresh_input_ratio_interval: Interval | None
    answers: AnswerCheck


@dataclass(frozen=True)
class _Prepared:
    """The engines of a subject with the pool's images, and the machine before the start."""

    bundle: Bundle
    factory: EngineFactory
    subject: Subject
    engines: Engines
    machine: MachineState
    start: Contention

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        target: str,
        store: EngineStore,
        subject: Subject,
        precision: EnginePrecision | None,
    ) -> _Prepared:
        """Build the engines, and read the images and the machine's state.

        Args:
            bundle: bundle whose engines run.
            target: name or TOML file of the target.
            store: engine store.
            subject: stage or chain that runs.
            precision: precision of the engines; None for those that were built last.
        """
        factory = EngineFactory.of_last_build(bundle, target, store, precision)
        factory.backend.check_runs_here()
        built = {stage: factory.build(stage)[0] for stage in CHAIN_STAGES}
        files = {
            stage: (engine.path, engine.sidecar.key.precision, engine.sidecar.engine_sha256)
            for stage, engine in built.items()
        }
        images = np.concatenate([*image_set(bundle, None).batches])
        start = watch_start()
        return cls(
            bundle=bundle,
            factory=factory,
            subject=subject,
            engines=Engines(
                options=factory.target.options,
                engines=tuple(file for stage, file in files.items() if subject in ("chain", stage)),
                inputs_by=(files["encoder"],) if subject == "classifier" else (),
                images=images.tobytes(),
                image_shape=images.shape,
            ),
            machine=machine_state(with_gpu=factory.target.uses_gpu, start=start),
            start=start,
        )

    def evidence(self, started: Started, answers: Sequence[Answer]) -> _Evidence:
        """Compare the times of fresh inputs with those of repeated ones, and the answers with the first ones.

        The limits of the answers' differences are those of the gates for the engines' precisions.

        Args:
            started: the process of the engines at its start.
            answers: the outputs before the run, then those of some of its runs.
        """
        ratio, interval = fresh_input_ratio(
            [entry.nanoseconds for entry in started.rounds], [entry.inputs for entry in started.rounds]
        )
        precisions = [precision for _, precision, _ in self.engines.engines]
        return _Evidence(
            ratio, interval, check_answers(answers, expected_answers(None, precisions, self.bundle))
        )

    def engine_run(
        self, schema_version: int, version: str, batch: int, observed: Contention, evidence: _Evidence
    ) -> EngineRun:
        """Return what ran and where, with the contention of the run.

        Args:
            schema_version: version of the result's format.
            version: version of the backend's library.
            batch: largest number of images in one run of the engine.
            observed: contention during the run.
            evidence: what shows that the engines computed each answer.
        """
        manifest = self.bundle.manifest
        threads = thread_count(self.factory.target.options.threads)
        contention = (self.start, observed)
        return EngineRun(
            schema_version=schema_version,
            created_by=f"ccr-deploy {__version__}",
            bundle=printable(str(self.bundle.path)),
            contract_id=manifest.contract_id,
            weights_sha256=manifest.weights.sha256,
            model=manifest.model.summary,
            trained_iterations=manifest.trained_iterations,
            warnings=manifest.warnings,
            target=self.factory.target_name,
            subject=self.subject,
            precisions=tuple(precision for _, precision, _ in self.engines.engines),
            engines_sha256=tuple(sha256 for _, _, sha256 in self.engines.engines),
            backend_version=version,
            batch=batch,
            threads=threads,
            machine=self.machine,
            contention=contention,
            unreliable_reasons=(
                *unreliable_reasons(threads, contention),
                *unreliable_answers(
                    f"{self.subject}: {self.factory.target_name}",
                    evidence.answers,
                    evidence.fresh_input_ratio,
                    evidence.fresh_input_ratio_interval,
                ),
            ),
        )


def _result(
    engine_run: EngineRun,
    scenario: Scenario,
    settings: ScenarioSettings,
    measured: Measured | PacedRounds,
    evidence: _Evidence,
) -> ScenarioResult:
    """Return the result of a scenario from what was measured."""
    if isinstance(measured, PacedRounds):
        comparison = paced.compare(measured, settings.seed)
        taken = [sample for frames in measured.frames for sample in frames]
        measured = Measured(tuple(taken), len(taken), len(taken), measured.duration_nanoseconds)
    else:
        comparison = None
    log = measured.loadgen
    samples_ms = milliseconds(measured.nanoseconds)
    spread = latencies(samples_ms)
    seconds = measured.duration_nanoseconds / 1e9
    percentile = settings.target_percentile
    rule = early_stopping(samples_ms, percentile, settings.latency_bound_ms) if percentile else None
    over = over_bound_percent(settings, rule, measured.queries)
    own = OwnSummary(scenario, measured.queries, measured.samples, seconds, spread, rule)
    summary = compare(log, own) if log else None
    reasons = (
        *not_quotable_reasons(
            scenario,
            settings,
            samples=measured.samples,
            duration_seconds=seconds,
            early_stopping=rule,
            loadgen=summary,
        ),
        *(["the run is unreliable"] if engine_run.unreliable_reasons else []),
    )
    return ScenarioResult(
        **asdict(engine_run),
        **vars(evidence),
        scenario=scenario,
        issued_by=f"LoadGen {log.version}" if log else "ccr-deploy",
        settings=settings,
        queries=measured.queries,
        samples=measured.samples,
        duration_seconds=seconds,
        samples_per_second=measured.samples / seconds,
        queries_per_second=measured.queries / seconds,
        latencies=spread,
        samples_ms=drawn(samples_ms, KEPT_SAMPLES, settings.seed),
        early_stopping=rule,
        bound_met=None if over is None or percentile is None else over <= 100 - percentile,
        over_bound_percent=over,
        is_quotable=not reasons,
        not_quotable_reasons=reasons,
        loadgen=summary,
        paced=comparison,
    )
