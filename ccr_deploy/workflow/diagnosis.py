"""Diagnosis of a failed verification: a second pass over a few images, with graphs and engines at hand."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE, int8_weights_here
from ccr_deploy.core.printable import reason_of
from ccr_deploy.core.progress import SILENT
from ccr_deploy.verification.answers import answers_to
from ccr_deploy.verification.diagnosis import Alternatives, Evidence, diagnose, other_findings, suspects
from ccr_deploy.verification.graph_faults import explain_graph, explain_int8_engine, explain_ranges
from ccr_deploy.verification.results import REFERENCE, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from ccr_deploy.backends.pytorch.runner import PyTorchRunner
    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage, Stage
    from ccr_deploy.engines.store import Engine
    from ccr_deploy.quantization.table import StageTable
    from ccr_deploy.verification import answers
    from ccr_deploy.verification.answers import BatchAnswers, Bytes
    from ccr_deploy.verification.code_faults import Explanation
    from ccr_deploy.verification.diagnosis import Suspect
    from ccr_deploy.verification.gates import GateLimits
    from ccr_deploy.verification.results import Level, VerificationReport

    Runners = Mapping[Level, Mapping[Stage, Runner]]


@dataclass(frozen=True)
class Verified:
    """What was verified.

    `graphs` are those that the engines were built from; empty if the reference is a golden file. `load`
    returns new runners of every way.
    """

    bundle: Bundle
    engines: Mapping[Stage, Engine]
    graphs: Mapping[Stage, GraphRecord]
    limits: Mapping[Level, GateLimits]
    load: Callable[[], Runners]


def diagnosed(
    report: VerificationReport,
    verified: Verified,
    images: Callable[[], Bytes],
    reference: Callable[[], tuple[answers.Reference, PyTorchRunner | None]],
    progress: Progress = SILENT,
) -> VerificationReport:
    """Return the report with findings: the step, stage and cause of what is wrong, if anything is.

    If the diagnosis itself fails, the finding says so: the verification has its result already.

    Args:
        report: the verification.
        verified: what was verified.
        images: returns a few of the images, ``uint8 [N, H, W, 3]``.
        reference: returns the reference for those images, and PyTorch's encoder if it is PyTorch.
        progress: shows that the diagnosis runs.
    """
    found = list(report.findings)
    if suspected := suspects(report, verified.limits):
        with progress.task("diagnosing", 1) as advance:
            try:
                found += _diagnose(suspected, verified, images, reference)
            except Exception as error:  # of any library: engines, graphs and PyTorch run again
                reason = f"the diagnosis failed: {reason_of(error)}"
                found += [Finding(one.step, one.stage, "unknown", reason) for one in suspected]
            advance(1)
    found += other_findings(report, found)
    return structs.replace(report, findings=tuple(found))


def _diagnose(
    suspected: list[Suspect],
    verified: Verified,
    images: Callable[[], Bytes],
    reference: Callable[[], tuple[answers.Reference, PyTorchRunner | None]],
) -> tuple[Finding, ...]:
    with ExitStack() as stack:
        runners = verified.load()
        for runner in (one for way in runners.values() for one in way.values()):
            stack.enter_context(runner)
        expected, encoder = reference()
        for runner in expected.runners:
            stack.enter_context(runner)
        batch = answers_to(images(), expected, runners)
        other = Alternatives(encoder.codes_of_iterations, encoder.codes_normalised_by) if encoder else None
        evidence = Evidence(
            batch=batch,
            runners=runners,
            contract=verified.bundle.manifest.contract,
            alternatives=other,
            explain_artifact=lambda suspect: _explain_artifact(suspect, verified, batch),
        )
        return diagnose(suspected, evidence)


def _explain_artifact(suspect: Suspect, verified: Verified, batch: BatchAnswers) -> Explanation | None:
    """Look for the cause in a graph, compared with the one that it was made from, or in an engine."""
    stage = suspect.stage
    if suspect.step == "engine":
        weight_bits = verified.engines[stage].sidecar.key.weight_bits
        return explain_int8_engine(weight_bits, int8_weights_here(os.environ.get(MAX_ISA_VARIABLE)))
    from ccr_deploy.workflow.graph_parts import graph_parts

    own = verified.graphs[stage]
    record = verified.bundle.graph(stage, "fp32", own.schedule) if suspect.step == "fp32-graph" else own
    model, source = _load(verified.bundle, record), _source(suspect, verified.bundle, record)
    difference = explain_graph(graph_parts(model), graph_parts(source))
    if difference or not record.quantized_convolutions or stage == "baseline":
        return difference
    return _explain_ranges(stage, verified.bundle, (model, source), batch)


def _source(suspect: Suspect, bundle: Bundle, record: GraphRecord) -> ir.Model:
    """Return the graph that a graph was made from; for one that was made from PyTorch, what it should be."""
    if suspect.before == REFERENCE:
        from ccr_deploy.export.stage_graph import graph_of_weights

        return graph_of_weights(bundle, record.stage, record.schedule)
    return _load(bundle, bundle.graph(record.stage, "fp32", record.schedule))


def _explain_ranges(
    stage: ChainStage, bundle: Bundle, graphs: tuple[ir.Model, ir.Model], batch: BatchAnswers
) -> Explanation | None:
    from ccr_deploy.workflow.graph_parts import clipped_activations

    feeds = {"image": batch.images} if stage == "encoder" else {"code": batch.answers[REFERENCE].codes}
    return explain_ranges(clipped_activations(*graphs, _table(bundle, stage), feeds))


def _table(bundle: Bundle, stage: ChainStage) -> StageTable | None:
    from ccr_deploy.quantization.table import read_table

    calibration = bundle.manifest.calibration
    return read_table(bundle.file(calibration.table)).stages[stage] if calibration else None


def _load(bundle: Bundle, record: GraphRecord) -> ir.Model:
    from ccr_deploy.workflow.graphs import load_model

    return load_model(bundle, record)
