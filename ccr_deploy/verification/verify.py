"""Comparison of PyTorch, graphs and engines, stage by stage."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import structs

from ccr_deploy import __version__
from ccr_deploy.codec.payload import PayloadWriter
from ccr_deploy.core.metrics import softmax
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT, Progress
from ccr_deploy.verification.answers import NO_MATRIX, Answers, PrecisionRunners, Reference, answered
from ccr_deploy.verification.gates import GateLimits, check_gates
from ccr_deploy.verification.measures import Measures, join, measure
from ccr_deploy.verification.parity import (
    chain_accuracies,
    code_parity,
    logit_parity,
    matrix_cells,
    non_finite_values,
)
from ccr_deploy.verification.results import (
    SCHEMA_VERSION,
    EngineSummary,
    GoldenAnswer,
    GoldenAnswers,
    Level,
    VerificationReport,
)
from ccr_deploy.verification.shown import ShownImages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine
    from ccr_deploy.verification.image_set import ImageSet

JOINED_BATCHES = 64
"""Batches whose measurements are kept apart: an array for each number of each batch would use memory."""


def verify(
    bundle: Bundle,
    images: ImageSet,
    *,
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    engines: Sequence[Engine],
    target: str,
    limits: Mapping[Level, GateLimits],
    golden_sha256: str | None = None,
    matrix: PrecisionRunners = NO_MATRIX,
    progress: Progress = SILENT,
) -> VerificationReport:
    """Run the images in every way and compare the outputs with the reference.

    Args:
        bundle: bundle that the engines were built from.
        images: images to run.
        reference: what they are compared with.
        ways: the runners of each stage, in the order in which the ways are made from each other: graphs and
            engine, or the engine alone.
        engines: engines to list in the report.
        target: name of the target.
        limits: limits of the gates for each way.
        golden_sha256: SHA-256 of the golden file that is the reference, if it is one.
        matrix: the runners of each precision, which are run in every combination.
        progress: advances by images.
    """
    manifest = bundle.manifest
    shown = ShownImages(manifest, images)
    parts: list[Measures] = []
    digest = hashlib.sha256()
    golden_answers: list[GoldenAnswer] = []
    first = 0
    with progress.task("verifying", len(images.names)) as advance:
        for batch in answered(images.batches, reference, ways, matrix):
            part = slice(first, first + len(batch.images))
            parts.append(measure(batch, images.labels[part], manifest.contract.code_channels))
            if len(parts) == JOINED_BATCHES:
                parts = [join(parts)]
            # A digest of digests, which can be joined if batches are run by several machines.
            digest.update(hashlib.sha256(batch.images.tobytes()).digest())
            shown.add(first, batch)
            if golden_sha256:
                golden_answers += _golden_answers(
                    images.names[part], batch.answers["engine"], manifest.contract
                )
            first = part.stop
            advance(len(batch.images))
    measures = join(parts)
    codes = tuple(code_parity(pair, found) for pair, found in measures.codes.items())
    logits = tuple(logit_parity(stage, pair, found) for (stage, pair), found in measures.logits.items())
    accuracies, changes = chain_accuracies(measures, images.labels, images.groups)
    non_finite = non_finite_values(measures, images.names)
    return VerificationReport(
        schema_version=SCHEMA_VERSION,
        created_by=f"ccr-deploy {__version__}",
        bundle=printable(str(bundle.path)),
        contract_id=manifest.contract_id,
        weights_sha256=manifest.weights.sha256,
        iterations=manifest.model.iterations,
        trained_iterations=manifest.trained_iterations,
        warnings=manifest.warnings,
        target=target,
        images=images.description,
        images_sha256=digest.hexdigest(),
        image_count=len(images.names),
        codes=codes,
        logits=logits,
        accuracies=accuracies,
        accuracy_changes=changes,
        non_finite=non_finite,
        gates=check_gates(limits, codes, logits, accuracies, non_finite),
        engines=tuple(_summary(engine) for engine in engines),
        samples=tuple(shown.samples),
        changed_answers=tuple(shown.changed_answers),
        calibration=manifest.calibration,
        golden=GoldenAnswers(golden_sha256, tuple(golden_answers)) if golden_sha256 else None,
        matrix=matrix_cells(measures, images.labels, images.groups),
    )


def _summary(engine: Engine) -> EngineSummary:
    known = {**structs.asdict(engine.sidecar.key), "engine_sha256": engine.sidecar.engine_sha256}
    return EngineSummary(**{name: known[name] for name in EngineSummary.__struct_fields__})


def _golden_answers(names: Sequence[str], answers: Answers, contract: CodeContract) -> Iterator[GoldenAnswer]:
    probabilities = softmax(answers.logits["chain"])
    payloads = PayloadWriter(contract).payloads(answers.codes)
    for name, payload, row in zip(names, payloads, probabilities, strict=True):
        yield GoldenAnswer(
            image=name,
            payload_sha256=hashlib.sha256(payload).hexdigest(),
            top1=int(row.argmax()),
            probability=float(row.max()),
        )
