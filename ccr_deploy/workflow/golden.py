"""Golden files: write one from a bundle's checkpoint, verify engines against one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy import CREATED_BY
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.engines.lookup import engine_key, find_engine
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.answers import BATCH, collect
from ccr_deploy.verification.diagnosis import DIAGNOSED_IMAGES
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.golden import (
    SCHEMA_VERSION,
    Golden,
    GoldenRecord,
    check_same_model,
    most_images,
    read_golden,
    write_golden,
)
from ccr_deploy.verification.image_set import ImageSet
from ccr_deploy.verification.reference import GoldenReference
from ccr_deploy.verification.verify import verify
from ccr_deploy.workflow.diagnosis import Verified, diagnosed
from ccr_deploy.workflow.engines import bundle_stages, compared_factory
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.reference import pytorch_reference
from ccr_deploy.workflow.verified_engines import record_verification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.results import Level, VerificationReport

GOLDEN_SAMPLES = 64
"""Images of a golden file by default: seconds on a device, and 10 MB at 224x224."""


def export_golden(
    bundle: Bundle,
    path: Path,
    store: EngineStore,
    *,
    images: Path | None = None,
    samples: int | None = None,
    changed_gates: Sequence[str] = (),
    progress: Progress = SILENT,
) -> GoldenRecord:
    """Run the checkpoint in PyTorch and write its results to a golden file.

    Args:
        bundle: bundle of the checkpoint.
        path: golden file to write.
        store: engine store, which holds the PyTorch reference's networks.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for `GOLDEN_SAMPLES`.
        changed_gates: limits that replace the default ones for every precision, each as ``name=value``.
        progress: advances by images.

    Returns:
        The record that was written.

    Raises:
        WrongUsageError: if a gate does not exist, its limit is not finite, or there are too many samples.
        GoldenError: if the file cannot be written, or activations or logits are NaN or infinite.
        BundleError: if the bundle is damaged.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if PyTorch is not installed.
    """
    manifest = bundle.manifest
    models = (manifest.model, manifest.baseline.model) if manifest.baseline else (manifest.model,)
    most = most_images(manifest.contract, max(model.classifier.classes for model in models))
    count = samples or min(GOLDEN_SAMPLES, most)
    if count > most:
        raise WrongUsageError(f"--samples {count}: a golden file holds up to {most} images of this size")
    limits = {
        row.name: dict(GateLimits.of([row.name], bundle).changed(changed_gates).by_name)
        for row in PRECISIONS.values()
    }
    for name, limit in limits["fp32"].items():
        if not math.isfinite(limit):
            raise WrongUsageError(
                f"gate {name}: a golden file cannot hold the limit {limit}: use a finite number"
            )
    chosen = image_set(bundle, images, count)
    kept: list[npt.NDArray[np.uint8]] = []

    def batches() -> Iterator[npt.NDArray[np.uint8]]:
        for batch in chosen.batches:
            kept.append(batch)
            yield batch

    reference = pytorch_reference(bundle, AnswerCache(store.path), store)
    expected, margins = collect(batches(), reference, total=len(chosen.names), progress=progress)
    logits: dict[Stage, npt.NDArray[np.float32]] = {"classifier": expected.logits["classifier"]}
    if "baseline" in expected.logits:
        logits["baseline"] = expected.logits["baseline"]
    record = GoldenRecord(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        contract=manifest.contract,
        contract_id=manifest.contract_id,
        weights_sha256=manifest.weights.sha256,
        baseline_sha256=manifest.baseline.weights.sha256 if manifest.baseline else None,
        classes=logits["classifier"].shape[1],
        baseline_classes=logits["baseline"].shape[1] if "baseline" in logits else None,
        images=chosen.description,
        image_names=chosen.names,
        labels=chosen.labels,
        groups=chosen.groups,
        limits=limits,
        changed_gates=tuple(GateLimits({}).changed(changed_gates).by_name),
    )
    golden = Golden(
        record=record,
        images=np.concatenate(kept),
        codes=expected.codes,
        margins=margins.astype(np.float16),
        logits=logits,
    )
    write_golden(path, golden)
    return record


def verify_golden(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    path: Path,
    *,
    precision: EnginePrecision | None = None,
    changed_gates: Sequence[str] = (),
    progress: Progress = SILENT,
) -> VerificationReport:
    """Compare the target's engines with a golden file, without PyTorch and without a data set.

    The limits of the gates are the golden file's, for the engines' lowest precision. The outcome is recorded
    in the engines' sidecars.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        path: golden file.
        precision: precision of encoder and classifier; None for the engines that were built last.
        changed_gates: limits that replace the golden file's, each as ``name=value``.
        progress: advances by images.

    Raises:
        GoldenError: if the file is damaged, was written for another model, or has no limits for the engines.
        WrongUsageError: if an engine was not built, or a gate does not exist.
        EngineError: if an engine cannot be loaded or run.
        MissingExtraError: if a package is not installed.
    """
    golden = read_golden(path)
    check_same_model(golden.record, bundle.manifest, path)
    factory = compared_factory(bundle, target, store, precision)
    engines = {}
    for stage in bundle_stages(bundle):
        # Not `factory.find`, which reads the graph: a container may hold only the manifest and the engines.
        key = engine_key(bundle, stage, factory.resolved(stage), factory.backend)
        engines[stage] = find_engine(store, bundle, target, key, factory.backend.suffix)
    record = golden.record
    recorded = GateLimits.recorded(record.limits, map(factory.precision, engines), path)
    limits = recorded.changed(changed_gates)
    # The limits that are not the default ones: of the export, unless this run changes them again.
    exported = [
        f"{name}={recorded.by_name[name]}" for name in record.changed_gates if name in recorded.by_name
    ]

    def load_ways() -> dict[Level, dict[Stage, Runner]]:
        return {"engine": factory.load_all(engines)}

    report = verify(
        bundle,
        golden_images(golden, path),
        reference=GoldenReference(golden),
        ways=load_ways(),
        engines=list(engines.values()),
        target=target,
        limits={"engine": limits},
        golden_sha256=sha256_of(path),
        progress=progress,
    )
    report = diagnosed(
        report,
        Verified(bundle, engines, {}, {"engine": limits}, load_ways),
        lambda: golden.images[:DIAGNOSED_IMAGES],
        lambda: (GoldenReference(golden), None),
        progress,
    )
    return record_verification(report, store, engines.values(), (*exported, *changed_gates))


def golden_images(golden: Golden, path: Path) -> ImageSet:
    """Return the images of a golden file; `path` is the file, for the description."""
    record = golden.record
    return ImageSet(
        description=f"golden file {printable(str(path))}, from {record.images}",
        batches=(golden.images[first : first + BATCH] for first in range(0, len(golden.images), BATCH)),
        names=record.image_names,
        labels=record.labels,
        groups=record.groups,
    )
