"""PyTorch, graphs and the target's engines on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.progress import SILENT
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.targets.schema import REFERENCE_TARGET
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.verify import verify
from ccr_deploy.workflow.engines import bundle_stages, compared_factory
from ccr_deploy.workflow.graphs import graph_runner
from ccr_deploy.workflow.images import folder_images, sample_images

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
    changed_gates: Sequence[str] = (),
    progress: Progress = SILENT,
) -> VerificationReport:
    """Compares PyTorch, graphs and the target's engines on a folder's images or the bundle's samples.

    The gates are those of the engines' lowest precision, with the limits that `changed_gates` names
    (``name=value``). Without a `precision` the engines that were built last are compared.

    Raises:
        WrongUsageError: an engine was not built yet, or there is no such gate.
        EngineError, BundleError, ImageError, MissingExtraError: as their names say.
    """
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner

    factory = compared_factory(bundle, target, store, precision)
    precisions = [factory.precision(stage) for stage in bundle_stages(bundle)]
    limits = GateLimits.of(precisions, bundle).changed(changed_gates)
    engines = {stage: factory.find(stage) for stage in bundle_stages(bundle)}
    image_set = folder_images(bundle, images) if images else sample_images(bundle)
    reference = EngineFactory(bundle, REFERENCE_TARGET, store)
    reference_runners = {stage: reference.load(reference.build(stage)[0]) for stage in engines}
    reference_encoder = reference_runners["encoder"]
    assert isinstance(reference_encoder, PyTorchRunner)
    return verify(
        bundle,
        image_set,
        ways={
            "pytorch": reference_runners,
            "graph": {stage: graph_runner(bundle, factory.graph_record(stage)) for stage in engines},
            "engine": {stage: factory.load(engine) for stage, engine in engines.items()},
        },
        pre_binarization=reference_encoder.pre_binarization,
        engines=list(engines.values()),
        target=target,
        limits=limits,
        progress=progress,
    )
