"""Diagnosis of a failed verification: the step that introduces a fault, its stage, and its cause."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ccr_deploy.verification.answers import codes_of, logits_of
from ccr_deploy.verification.code_faults import CodeQuestion, Explanation, explain_codes
from ccr_deploy.verification.gates import CODE_GATES, LOGIT_GATES
from ccr_deploy.verification.logit_faults import explain_logits
from ccr_deploy.verification.results import REFERENCE, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.codec.contract import CodeContract, Preprocessing
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.verification.answers import BatchAnswers, Bytes
    from ccr_deploy.verification.gates import Gate, GateLimits
    from ccr_deploy.verification.results import (
        CodeParity,
        FaultyStage,
        Level,
        LogitParity,
        VerificationReport,
        Way,
    )

DIAGNOSED_IMAGES = 16
"""Images that a diagnosis runs: enough to tell channels and classes apart."""
FEWEST_FLIPS = 50
"""Flipped bits from which their median margin says something about their cause."""
_STEPS: Mapping[Way, str] = {"fp32-graph": "the FP32 graph", "graph": "the graph", "engine": "the engine"}


@dataclass(frozen=True)
class Suspect:
    """A stage whose outputs differ, the first step at which they do, and the step before."""

    stage: Stage
    step: Level
    before: Way


@dataclass(frozen=True)
class Alternatives:
    """What PyTorch's encoder computes under other assumptions; see `CodeQuestion`."""

    by_iterations: Callable[[Bytes, int], list[Bytes]]
    normalised_by: Callable[[Bytes, Preprocessing], Bytes]


@dataclass(frozen=True)
class Evidence:
    """What the causes of a difference are looked for in.

    Attributes:
        batch: a few images, and the outputs of all ways.
        runners: the open runners of each stage, by the way they run.
        contract: the bundle's.
        alternatives: those of PyTorch; None if the reference is a golden file.
        explain_artifact: looks for the cause in the graph or engine of a step itself, if outputs do not tell.
    """

    batch: BatchAnswers
    runners: Mapping[Level, Mapping[Stage, Runner]]
    contract: CodeContract
    alternatives: Alternatives | None
    explain_artifact: Callable[[Suspect], Explanation | None]


def suspects(report: VerificationReport, limits: Mapping[Level, GateLimits]) -> list[Suspect]:
    """Return each stage whose outputs differ from the reference's by more than the gates allow.

    A stage is suspected at the first step that is outside of its limits compared with the step before. If
    several steps each add a difference within the limits, it is the first that fails a gate.

    Args:
        report: the verification.
        limits: the limits of the gates of each step, in the order of the steps.
    """
    return [*_suspected_encoder(report, limits), *_suspected_classifiers(report, limits)]


def diagnose(suspected: Sequence[Suspect], evidence: Evidence) -> tuple[Finding, ...]:
    """Return a finding for each suspect, with the cause that the evidence shows.

    Args:
        suspected: stages that differ.
        evidence: outputs and graphs.
    """
    return tuple(
        _finding(suspect, _explain_outputs(suspect, evidence) or evidence.explain_artifact(suspect))
        for suspect in suspected
    )


def other_findings(report: VerificationReport, found: Sequence[Finding]) -> Iterator[Finding]:
    """Yield findings for what is wrong but not the fault of one stage.

    Args:
        report: the verification.
        found: what was found about single stages.
    """
    for entry in report.non_finite:
        if entry.way == REFERENCE:
            stage: FaultyStage = "encoder" if entry.output == "activations" else entry.output
            evidence = (
                f"{entry.values} values of the checkpoint are NaN or infinite, first in {entry.first_image}"
            )
            yield Finding(REFERENCE, stage, "non-finite", evidence)
            return
    failed = [gate for gate in report.gates if not gate.passed]
    if failed and not found:
        gate = failed[0]
        yield Finding(gate.level, "chain", "unknown", f"{gate.gate}: {gate.found:g}, limit {gate.limit:g}")


def _suspected_encoder(report: VerificationReport, limits: Mapping[Level, GateLimits]) -> Iterator[Suspect]:
    with_reference = [parity for parity in report.codes if parity.against == REFERENCE]
    outside = {parity.level for parity in with_reference if _is_outside(CODE_GATES, limits, parity)}
    not_rounding = {parity.level for parity in with_reference if _is_not_rounding(parity)}
    if outside or not_rounding:
        steps = [
            parity.level
            for parity in _with_step_before(report.codes, list(limits))
            if _is_outside(CODE_GATES, limits, parity) or _is_not_rounding(parity)
        ]
        yield _first(
            "encoder", steps or [level for level in limits if level in outside | not_rounding], limits
        )


def _suspected_classifiers(
    report: VerificationReport, limits: Mapping[Level, GateLimits]
) -> Iterator[Suspect]:
    stages: tuple[Stage, ...] = ("classifier", "baseline")
    for stage in stages:
        of_stage = [parity for parity in report.logits if parity.stage == stage]
        outside = [
            parity.level
            for parity in of_stage
            if parity.against == REFERENCE and _is_outside(LOGIT_GATES, limits, parity)
        ]
        if outside:
            steps = [
                parity.level
                for parity in _with_step_before(of_stage, list(limits))
                if _is_outside(LOGIT_GATES, limits, parity)
            ]
            yield _first(stage, steps or outside, limits)


def _first(stage: Stage, steps: Sequence[Level], limits: Mapping[Level, GateLimits]) -> Suspect:
    before: dict[Level, Way] = dict(zip(limits, (REFERENCE, *limits), strict=False))
    step = next(level for level in limits if level in steps)
    return Suspect(stage, step, before[step])


def _with_step_before(parities: Sequence[Any], levels: Sequence[Level]) -> Iterator[Any]:
    """Yield the parity of each step with the one before it."""
    pairs = set(pairwise((REFERENCE, *levels)))
    return (parity for parity in parities if (parity.against, parity.level) in pairs)


def _is_outside(
    gates: Sequence[Gate[Any]], limits: Mapping[Level, GateLimits], parity: CodeParity | LogitParity
) -> bool:
    by_name = limits[parity.level].by_name
    return any(
        gate.name in by_name and (value := gate.measure(parity)) is not None
        and not gate.holds(value, by_name[gate.name])
        for gate in gates
    )  # fmt: skip


def _is_not_rounding(parity: CodeParity) -> bool:
    return parity.flip_kind == "not rounding" and parity.flipped_bits >= FEWEST_FLIPS


def _explain_outputs(suspect: Suspect, evidence: Evidence) -> Explanation | None:
    found, expected = evidence.batch.answers[suspect.step], evidence.batch.answers[suspect.before]
    runners, contract = evidence.runners[suspect.step], evidence.contract
    if suspect.stage == "encoder":
        other = evidence.alternatives
        return explain_codes(
            CodeQuestion(
                images=evidence.batch.images,
                found=found.codes,
                expected=expected.codes,
                shape=contract.code_shape,
                encode=lambda images: codes_of(runners["encoder"], images),
                iterations=contract.iterations,
                preprocessing=contract.preprocessing,
                by_iterations=other.by_iterations if other else None,
                normalised_by=other.normalised_by if other else None,
            )
        )
    if suspect.stage == "classifier":
        return explain_logits(
            evidence.batch.answers[REFERENCE].codes,
            found.logits["classifier"],
            expected.logits["classifier"],
            contract.code_shape,
            lambda codes: logits_of(runners["classifier"], "code", codes),
        )
    return None


def _finding(suspect: Suspect, explanation: Explanation | None) -> Finding:
    if explanation is None:
        before = "PyTorch" if suspect.before == REFERENCE else _STEPS[suspect.before]
        evidence = (
            f"{_STEPS[suspect.step]} differs from {before} by more than its gates allow; "
            "nothing that was tested explains it: compare layer by layer with ccr-deploy verify --layers"
        )
        return Finding(suspect.step, suspect.stage, "unknown", evidence)
    return Finding(suspect.step, suspect.stage, explanation.cause, explanation.evidence)
