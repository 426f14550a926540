"""The engines of a scenario or a soak with their inputs, and what its result says about both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy import CREATED_BY
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.answers import check_answers
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_answers, unreliable_reasons
from ccr_deploy.benchmarking.scenario_results import EngineRun
from ccr_deploy.benchmarking.scenarios.messages import Engines
from ccr_deploy.benchmarking.timed_runs import fresh_input_ratio, fresh_input_ratios
from ccr_deploy.core.printable import printable
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
    from ccr_deploy.engines.store import EngineStore

SEED = 0
"""Seed of the draws of samples."""


@dataclass(frozen=True)
class Evidence:
    """What shows that the engines computed each answer while they were timed, and the same as before."""

    fresh_input_ratio: float | None
    fresh_input_ratio_interval: Interval | None
    answers: AnswerCheck


@dataclass(frozen=True)
class PreparedEngines:
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
    ) -> PreparedEngines:
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

    def evidence(self, started: Started, answers: Sequence[Answer]) -> Evidence:
        """Compare the times of fresh inputs with those of repeated ones, and the answers with the first ones.

        The limits of the answers' differences are those of the gates for the engines' precisions.

        Args:
            started: the process of the engines at its start.
            answers: the outputs before the run, then those of some of its runs.
        """
        ratio, interval = fresh_input_ratio(*_samples(started))
        precisions = [precision for _, precision, _ in self.engines.engines]
        return Evidence(
            ratio, interval, check_answers(answers, expected_answers(None, precisions, self.bundle))
        )

    def engine_run(
        self,
        schema_version: int,
        started: Started,
        batch: int,
        observed: Sequence[Contention],
        evidence: Evidence,
    ) -> EngineRun:
        """Return what ran and where, with the contention of the run.

        Args:
            schema_version: version of the result's format.
            started: the process of the engines at its start.
            batch: largest number of images in one run of the engine.
            observed: contention since the engines were loaded.
            evidence: what shows that the engines computed each answer.
        """
        manifest = self.bundle.manifest
        threads = thread_count(self.factory.target.options.threads)
        contention = (self.start, *observed)
        return EngineRun(
            schema_version=schema_version,
            created_by=CREATED_BY,
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
            backend_version=started.version,
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
                    fresh_input_ratios(*_samples(started)),
                ),
            ),
        )


def _samples(started: Started) -> tuple[list[tuple[int, ...]], list[str]]:
    """Return the times of each round before the run, and a letter for each."""
    return [entry.nanoseconds for entry in started.rounds], [entry.inputs for entry in started.rounds]
