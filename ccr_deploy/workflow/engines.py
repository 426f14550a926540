"""Which engines a bundle has and a command compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.stages import CHAIN_STAGES, STAGES
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore


def bundle_stages(bundle: Bundle) -> tuple[Stage, ...]:
    """The stages that the bundle has graphs for."""
    return STAGES if bundle.manifest.baseline else CHAIN_STAGES


def compared_factory(
    bundle: Bundle, target: str, store: EngineStore, precision: EnginePrecision | None = None
) -> EngineFactory:
    """The factory of a target that can be compared with the PyTorch reference.

    Raises:
        WrongUsageError: the target is the reference.
    """
    factory = EngineFactory.of_last_build(bundle, target, store, precision)
    if factory.target.is_reference:
        raise WrongUsageError(f"the target {target} is the reference itself: name the one to compare with it")
    return factory


def built_precisions(bundle: Bundle, factory: EngineFactory) -> list[EnginePrecision]:
    """The precisions that this machine has instructions for and the bundle has graphs for, FP32 first."""
    return [
        precision
        for precision in factory.backend.native_precisions()
        if bundle.has_precision(PRECISIONS[precision].graph)
    ]
