"""Stages and precisions of a bundle that commands build and compare."""

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
    """Return the stages that a bundle has graphs for."""
    return STAGES if bundle.manifest.baseline else CHAIN_STAGES


def compared_factory(
    bundle: Bundle, target: str, store: EngineStore, precision: EnginePrecision | None = None
) -> EngineFactory:
    """Return the engine factory of a target that is to be compared with the PyTorch reference.

    Args:
        bundle: bundle that the engines are built from.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the one that was built last.

    Raises:
        WrongUsageError: if the target is the reference itself.
    """
    factory = EngineFactory.of_last_build(bundle, target, store, precision)
    if factory.target.is_reference:
        raise WrongUsageError(
            f"target {target} is the reference itself: choose the target to compare with it"
        )
    return factory


def built_precisions(bundle: Bundle, factory: EngineFactory) -> list[EnginePrecision]:
    """Return the precisions that this machine supports natively and the bundle has graphs for, FP32 first."""
    return [
        precision
        for precision in factory.backend.native_precisions()
        if bundle.has_precision(PRECISIONS[precision].graph)
    ]
