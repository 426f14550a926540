"""Verification of a target's engines and graphs against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.progress import SILENT
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.verify import verify
from ccr_deploy.workflow.engines import bundle_stages, compared_factory
from ccr_deploy.workflow.graphs import graph_runner
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.reference import pytorch_reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.results import VerificationReport


def verify_bundle(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    changed_gates: Sequence[str] = (),
    progress: Progress = SILENT,
) -> VerificationReport:
    """Compare PyTorch, graphs and the target's engines on the same images.

    The limits of the gates are those of the engines' lowest precision.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for all.
        changed_gates: limits that replace the default ones, each as ``name=value``.
        progress: advances by images.

    Raises:
        WrongUsageError: if an engine was not built, or a gate does not exist.
        EngineError: if an engine cannot be loaded or run.
        BundleError: if the bundle is damaged.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if a package is not installed.
    """
    factory = compared_factory(bundle, target, store, precision)
    precisions = [factory.precision(stage) for stage in bundle_stages(bundle)]
    limits = GateLimits.of(precisions, bundle).changed(changed_gates)
    engines = {stage: factory.find(stage) for stage in bundle_stages(bundle)}
    return verify(
        bundle,
        image_set(bundle, images, samples),
        reference=pytorch_reference(bundle, store),
        ways={
            "graph": {stage: graph_runner(bundle, factory.graph_record(stage)) for stage in engines},
            "engine": {stage: factory.load(engine) for stage, engine in engines.items()},
        },
        engines=list(engines.values()),
        target=target,
        limits=limits,
        progress=progress,
    )
