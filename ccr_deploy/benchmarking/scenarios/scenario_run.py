"""Run a scenario in a process of its own, and turn what it measured into its part of the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.scenarios.messages import Finished, RunScenario, Started
from ccr_deploy.benchmarking.scenarios.process import OVERTIME_FACTOR, ScenarioProcess
from ccr_deploy.core.progress import SILENT

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.answers import Answer
    from ccr_deploy.benchmarking.results import Contention, Subject
    from ccr_deploy.benchmarking.scenarios.messages import Measured, PacedRounds
    from ccr_deploy.core.progress import Progress

_GRACE_SECONDS = 60


@dataclass(frozen=True)
class ScenarioRun:
    """What was measured, the process at its start, the outputs of some runs, and the contention.

    `answers` are the outputs before the run, then those of some of its runs. `contention` was measured until
    the end of the rounds of fresh inputs, and during the run.
    """

    started: Started
    measured: Measured | PacedRounds
    answers: tuple[Answer, ...]
    contention: tuple[Contention, ...]


def run_scenario(request: RunScenario, subject: Subject, progress: Progress = SILENT) -> ScenarioRun:
    """Run a scenario in a process of its own.

    Args:
        request: the engines and the scenario.
        subject: what the engines are, for the contention.
        progress: advances by one for each second of the run.

    Raises:
        EngineError: if the engines cannot be loaded or run.
    """
    first = read_cpu_times()
    with ScenarioProcess(request) as process:
        started: Started = process.started()
        seconds = math.ceil(started.expected_seconds)
        shown = 0
        before = read_cpu_times()
        with progress.task(f"{request.scenario}: {subject}", seconds) as advance:

            def waiting(passed: float) -> None:
                nonlocal shown
                advance(int(passed) - shown)
                shown = int(passed)

            limit = _GRACE_SECONDS + OVERTIME_FACTOR * seconds
            finished: Finished = process.answer(Finished, limit, waiting)
        observed = contention("fresh inputs", first, before), contention(subject, before, read_cpu_times())
    return ScenarioRun(started, finished.measured, (*started.answers, *finished.answers), observed)
