"""Comparison of PyTorch, graphs and engines, stage by stage."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import TYPE_CHECKING

from msgspec import structs

from ccr_deploy import CREATED_BY
from ccr_deploy.bundle.manifest import MANIFEST
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.codec.payload import PayloadWriter
from ccr_deploy.core.metrics import softmax
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT, Progress
from ccr_deploy.verification.answers import (
    BATCH,
    NO_MATRIX,
    Answers,
    PrecisionRunners,
    Reference,
    answering,
)
from ccr_deploy.verification.collected import BatchResult, Collected
from ccr_deploy.verification.gates import check_gates
from ccr_deploy.verification.logit_faults import shuffled_classes
from ccr_deploy.verification.measures import measure
from ccr_deploy.verification.parity import (
    chain_accuracies,
    code_parity,
    logit_parity,
    matrix_cells,
    non_finite_values,
)
from ccr_deploy.verification.part_file import resumable
from ccr_deploy.verification.part_records import RecordedLimits, RunIdentity, listing_sha256
from ccr_deploy.verification.results import (
    REFERENCE,
    SCHEMA_VERSION,
    EngineSummary,
    GoldenAnswer,
    GoldenAnswers,
    Level,
    VerificationReport,
)
from ccr_deploy.verification.shown import SHOWN_CHANGES, ShownImages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine
    from ccr_deploy.verification.gates import GateLimits
    from ccr_deploy.verification.image_set import ImageSet
    from ccr_deploy.verification.part_file import PartFile


def verify(
    bundle: Bundle,
    images: ImageSet,
    *,
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    engines: Sequence[Engine],
    target: str,
    limits: Mapping[Level, GateLimits],
    computed_by: tuple[str, ...] = (),
    golden_sha256: str | None = None,
    matrix: PrecisionRunners = NO_MATRIX,
    journals: Path | None = None,
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
        computed_by: libraries, versions and processor that compute the reference and the graphs; empty if the
            reference is a golden file.
        golden_sha256: SHA-256 of the golden file that is the reference, if it is one.
        matrix: the runners of each precision, which are run in every combination.
        journals: folder of the part files that interrupted runs are resumed from; None to start again.
        progress: advances by images.
    """
    run = run_identity(
        bundle,
        images,
        ways,
        engines,
        target=target,
        limits=limits,
        matrix=matrix,
        computed_by=computed_by,
    )
    with (
        progress.task("verifying", run.image_count) as advance,
        resumable(journals, run) if journals else nullcontext() as journal,
    ):
        results = run_batches(
            bundle,
            images,
            reference=reference,
            ways=ways,
            matrix=matrix,
            journal=journal,
            with_golden=bool(golden_sha256),
            advance=advance,
        )
        return make_report(bundle, run, results, golden_sha256)


def run_identity(
    bundle: Bundle,
    images: ImageSet,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    engines: Sequence[Engine],
    *,
    target: str,
    limits: Mapping[Level, GateLimits],
    matrix: PrecisionRunners,
    computed_by: tuple[str, ...],
) -> RunIdentity:
    """Return what a verification compares.

    Args:
        bundle: bundle that the engines were built from.
        images: images to run.
        ways: the runners of each stage, by the way they run.
        engines: engines to list in the report.
        target: name of the target.
        limits: limits of the gates for each way.
        matrix: the runners of each precision, which are run in every combination.
        computed_by: libraries, versions and processor that compute the reference and the graphs; empty if the
            reference is a golden file.
    """
    manifest = bundle.manifest
    return RunIdentity(
        created_by=CREATED_BY,
        contract_id=manifest.contract_id,
        weights_sha256=manifest.weights.sha256,
        manifest_sha256=sha256_of(bundle.path / MANIFEST),
        computed_by=computed_by,
        target=target,
        engines=tuple(_summary(engine) for engine in engines),
        ways=(REFERENCE, *ways),
        matrix=tuple(matrix.pairs),
        limits={level: RecordedLimits.of(found) for level, found in limits.items()},
        images=images.description,
        image_count=len(images.names),
        listing_sha256=listing_sha256(images.names, images.labels, images.groups),
        batch=BATCH,
    )


def run_batches(
    bundle: Bundle,
    images: ImageSet,
    *,
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    matrix: PrecisionRunners,
    journal: PartFile | None,
    with_golden: bool = False,
    advance: Advance,
) -> Iterator[BatchResult]:
    """Run the batches of an image set's shard in every way, except those that the journal has.

    Args:
        bundle: bundle that the engines were built from.
        images: images to run.
        reference: what they are compared with.
        ways: the runners of each stage, by the way they run.
        matrix: the runners of each precision, which are run in every combination.
        journal: part file that the results are read from and added to.
        with_golden: whether to return the engines' answers for each image.
        advance: called with the number of images after each batch.
    """
    contract = bundle.manifest.contract
    shown = ShownImages(bundle.manifest, images)
    changes_left = SHOWN_CHANGES
    with answering(reference, ways, matrix) as answer:
        for number, pixels in zip(images.shard.numbers(), images.batches, strict=False):
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            result = journal.find(number, digest) if journal else None
            if result is None:
                part = slice(number * BATCH, number * BATCH + len(pixels))
                batch = answer(pixels)
                names, labels = images.names[part], images.labels[part]
                engine = batch.answers["engine"]
                result = BatchResult(
                    number=number,
                    images_sha256=digest,
                    names=names,
                    labels=labels,
                    groups=images.groups[part],
                    measures=measure(batch, labels, contract.code_channels),
                    shown=shown.of(part.start, batch, changes_left),
                    golden=tuple(_golden_answers(names, engine, contract)) if with_golden else (),
                )
                if journal:
                    journal.add(result)
            changes_left -= len(result.shown.changed_answers)
            yield result
            advance(len(pixels))


def make_report(
    bundle: Bundle, run: RunIdentity, results: Iterable[BatchResult], golden_sha256: str | None = None
) -> VerificationReport:
    """Make the report from the results of all batches, in order.

    Args:
        bundle: bundle that the engines were built from.
        run: what was compared.
        results: results of the batches.
        golden_sha256: SHA-256 of the golden file that is the reference, if it is one.
    """
    collected = Collected(run.image_count)
    for result in results:
        collected.add(result)
    manifest = bundle.manifest
    measures, names, labels, groups = (
        collected.measures,
        collected.names,
        collected.labels,
        collected.groups,
    )
    codes = tuple(code_parity(pair, found) for pair, found in measures.codes.items())
    logits = tuple(logit_parity(stage, pair, found) for (stage, pair), found in measures.logits.items())
    accuracies, changes = chain_accuracies(measures, labels, groups)
    non_finite = non_finite_values(measures, names)
    mixed_up = shuffled_classes(measures.answers[REFERENCE].top1, labels, manifest.class_name)
    limits = {level: recorded.limits() for level, recorded in run.limits.items()}
    return VerificationReport(
        schema_version=SCHEMA_VERSION,
        created_by=run.created_by,
        bundle=printable(str(bundle.path)),
        contract_id=manifest.contract_id,
        weights_sha256=manifest.weights.sha256,
        iterations=manifest.model.iterations,
        trained_iterations=manifest.trained_iterations,
        warnings=manifest.warnings,
        target=run.target,
        images=run.images,
        images_sha256=collected.images_sha256,
        image_count=run.image_count,
        codes=codes,
        logits=logits,
        accuracies=accuracies,
        accuracy_changes=changes,
        non_finite=non_finite,
        gates=check_gates(limits, codes, logits, accuracies, non_finite),
        engines=run.engines,
        samples=collected.shown.samples,
        changed_answers=collected.shown.changed_answers,
        calibration=manifest.calibration,
        golden=GoldenAnswers(golden_sha256, tuple(collected.golden)) if golden_sha256 else None,
        matrix=matrix_cells(measures, labels, groups),
        tolerance=manifest.tolerance,
        findings=(mixed_up,) if mixed_up else (),
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
