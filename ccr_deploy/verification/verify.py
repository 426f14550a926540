"""Comparison of PyTorch, graphs and engines, stage by stage."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs
from PIL import Image

from ccr_deploy import __version__
from ccr_deploy.codec.payload import PayloadWriter, encode_payload
from ccr_deploy.core.metrics import (
    Interval,
    cosine_similarities,
    flipped_bits,
    grouped_bootstrap_interval,
    softmax,
    top_k_hits,
)
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT, Progress
from ccr_deploy.data.images import jpeg_bytes
from ccr_deploy.verification.answers import Answers, Reference, collect
from ccr_deploy.verification.gates import GateLimits, check_gates
from ccr_deploy.verification.results import (
    REFERENCE,
    SCHEMA_VERSION,
    ChainAccuracy,
    CodeParity,
    EngineSummary,
    GoldenAnswer,
    GoldenAnswers,
    Level,
    LogitParity,
    LogitStage,
    SampleAnswer,
    VerificationReport,
    Way,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine

TIE_MARGIN = 1e-5
"""A bit may flip if its pre-binarization activation is within this many standard deviations of 0."""

SHOWN_SAMPLES = 12
THUMBNAIL_PIXELS = 96
"""The longer side of a sample image in the report, which contains the images themselves."""


@dataclass(frozen=True)
class ImageSet:
    """Images to verify with, in batches, and the name, label and group of each image."""

    description: str
    batches: Iterable[npt.NDArray[np.uint8]]
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    groups: tuple[str, ...]


def verify(
    bundle: Bundle,
    images: ImageSet,
    *,
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    engines: Sequence[Engine],
    target: str,
    limits: GateLimits,
    golden_sha256: str | None = None,
    progress: Progress = SILENT,
) -> VerificationReport:
    """Run the images in every way and compare the outputs with the reference.

    Args:
        bundle: bundle that the engines were built from.
        images: images to run.
        reference: what they are compared with; its pre-binarization activations show the flips that
            rounding explains.
        ways: the runners of each stage: graph and engine, or the engine alone.
        engines: engines to list in the report.
        target: name of the target.
        limits: limits of the gates.
        golden_sha256: SHA-256 of the golden file that is the reference, if it is one.
        progress: advances by images.
    """
    shown: dict[int, npt.NDArray[np.uint8]] = {}
    answers, values = collect(
        _keeping(images, shown), reference, ways, total=len(images.names), progress=progress
    )
    codes = tuple(_code_parity(level, answers[REFERENCE], answers[level], values) for level in ways)
    logits = tuple(
        _logit_parity(stage, level, expected, answers[level].logits[stage])
        for level in ways
        for stage, expected in answers[REFERENCE].logits.items()
    )
    accuracies = _accuracies(answers, images)
    return VerificationReport(
        schema_version=SCHEMA_VERSION,
        created_by=f"ccr-deploy {__version__}",
        bundle=printable(str(bundle.path)),
        contract_id=bundle.manifest.contract_id,
        weights_sha256=bundle.manifest.weights.sha256,
        iterations=bundle.manifest.model.iterations,
        trained_iterations=bundle.manifest.trained_iterations,
        warnings=bundle.manifest.warnings,
        target=target,
        images=images.description,
        image_count=len(images.names),
        codes=codes,
        logits=logits,
        accuracies=accuracies,
        gates=check_gates(limits, codes, logits, accuracies),
        engines=tuple(_summary(engine) for engine in engines),
        samples=_samples(bundle, images, answers["engine"], shown),
        calibration=bundle.manifest.calibration,
        golden=_golden_answers(golden_sha256, bundle, images, answers["engine"]) if golden_sha256 else None,
    )


def _keeping(images: ImageSet, shown: dict[int, npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the batches, and keep a few evenly spaced images in `shown` for the report."""
    wanted = set(np.linspace(0, len(images.names) - 1, SHOWN_SAMPLES).round().astype(int).tolist())
    first = 0
    for batch in images.batches:
        shown.update({first + index: pixels for index, pixels in enumerate(batch) if first + index in wanted})
        first += len(batch)
        yield batch


def _code_parity(
    level: Level, reference: Answers, other: Answers, values: npt.NDArray[np.float32]
) -> CodeParity:
    flips = flipped_bits(reference.codes, other.codes)
    explained = np.abs(values) <= TIE_MARGIN * values.std()
    return CodeParity(
        level=level,
        images=len(flips),
        bits=flips.size,
        flipped_bits=int(flips.sum()),
        unexplained_flips=int((flips & ~explained).sum()),
        equal_payloads=int((~flips.any(axis=1)).sum()),
    )


def _logit_parity(
    stage: LogitStage, level: Level, reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> LogitParity:
    return LogitParity(
        stage=stage,
        level=level,
        images=len(reference),
        max_difference=float(np.abs(reference - other).max()),
        min_cosine=float(cosine_similarities(reference, other).min()),
        same_top1=int((reference.argmax(axis=1) == other.argmax(axis=1)).sum()),
    )


def _accuracies(answers: Mapping[Way, Answers], images: ImageSet) -> tuple[ChainAccuracy, ...]:
    labelled = [index for index, label in enumerate(images.labels) if label is not None]
    if not labelled:
        return ()
    labels = np.array([images.labels[index] for index in labelled], dtype=np.int64)
    groups = [images.groups[index] for index in labelled]
    accuracies = []
    for chain, answered in answers.items():
        logits = answered.logits["chain"][labelled]
        hits = top_k_hits(logits, labels, 1)
        interval = grouped_bootstrap_interval(hits, groups)
        accuracies.append(
            ChainAccuracy(
                chain=chain,
                images=len(labelled),
                groups=len(set(groups)),
                top1_percent=100 * float(hits.mean()),
                top1_interval_percent=Interval(100 * interval.low, 100 * interval.high),
                top5_percent=100 * float(top_k_hits(logits, labels, 5).mean()),
            )
        )
    return tuple(accuracies)


def _summary(engine: Engine) -> EngineSummary:
    known = {**structs.asdict(engine.sidecar.key), "engine_sha256": engine.sidecar.engine_sha256}
    return EngineSummary(**{name: known[name] for name in EngineSummary.__struct_fields__})


def _samples(
    bundle: Bundle, images: ImageSet, answers: Answers, shown: dict[int, npt.NDArray[np.uint8]]
) -> tuple[SampleAnswer, ...]:
    manifest = bundle.manifest
    samples = []
    for index, pixels in shown.items():
        label = images.labels[index]
        probabilities = softmax(answers.logits["chain"][index : index + 1])[0]
        samples.append(
            SampleAnswer(
                name=images.names[index],
                thumbnail_png_base64=_thumbnail(pixels),
                label=None if label is None else manifest.class_name(label),
                answer=manifest.class_name(int(probabilities.argmax())),
                probability=float(probabilities.max()),
                payload_bytes=len(encode_payload(answers.codes[index], manifest.contract)),
                jpeg_bytes=jpeg_bytes(pixels),
            )
        )
    return tuple(samples)


def _golden_answers(sha256: str, bundle: Bundle, images: ImageSet, answers: Answers) -> GoldenAnswers:
    probabilities = softmax(answers.logits["chain"])
    payloads = PayloadWriter(bundle.manifest.contract).payloads(answers.codes)
    return GoldenAnswers(
        sha256,
        tuple(
            GoldenAnswer(
                image=name,
                payload_sha256=hashlib.sha256(payload).hexdigest(),
                top1=int(row.argmax()),
                probability=float(row.max()),
            )
            for name, payload, row in zip(images.names, payloads, probabilities, strict=True)
        ),
    )


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
