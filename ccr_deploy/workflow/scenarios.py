"""Scenarios of a target's engines, on the bundle's sample images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from ccr_deploy.benchmarking.scenario_results import (
    SCENARIO_SCHEMA_VERSION,
    EngineRun,
    ScenarioResult,
    ScenarioSettings,
)
from ccr_deploy.benchmarking.scenarios import loadgen, paced
from ccr_deploy.benchmarking.scenarios.agreement import OwnSummary, compare
from ccr_deploy.benchmarking.scenarios.early_stopping import early_stopping
from ccr_deploy.benchmarking.scenarios.messages import Measured, PacedRounds, RunScenario
from ccr_deploy.benchmarking.scenarios.quotable import (
    STREAMS,
    TARGET_PERCENTILES,
    not_quotable_reasons,
    over_bound_percent,
)
from ccr_deploy.benchmarking.scenarios.scenario_run import run_scenario
from ccr_deploy.benchmarking.scenarios.statistics import KEPT_SAMPLES, drawn, latencies, milliseconds
from ccr_deploy.core.progress import SILENT
from ccr_deploy.workflow.prepared_engines import SEED, Evidence, PreparedEngines

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.scenarios import Scenario
    from ccr_deploy.engines.store import EngineStore

MIN_DURATION_SECONDS = 10.0
FRAMES_PER_SECOND = 10.0


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
    prepared = PreparedEngines.of(bundle, target, store, subject, precision)
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
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-loadgen-") as name:
        folder = Path(name) if with_loadgen else None
        request = RunScenario(prepared.engines, batch, scenario, settings, folder)
        run = run_scenario(request, subject, progress)
    evidence = prepared.evidence(run.started, run.answers)
    engine_run = prepared.engine_run(SCENARIO_SCHEMA_VERSION, run.started, batch, run.contention, evidence)
    return _result(engine_run, scenario, settings, run.measured, evidence)


def _result(
    engine_run: EngineRun,
    scenario: Scenario,
    settings: ScenarioSettings,
    measured: Measured | PacedRounds,
    evidence: Evidence,
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
