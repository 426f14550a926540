"""Record the outcome of a verification in the sidecars of the verified engines."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.engines.sidecar import Verification
from ccr_deploy.errors import EngineError
from ccr_deploy.verification.gates import GateLimits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ccr_deploy.engines.store import Engine, EngineStore
    from ccr_deploy.verification.results import VerificationReport


def record_verification(
    report: VerificationReport,
    store: EngineStore,
    engines: Collection[Engine],
    changed_gates: Sequence[str],
) -> VerificationReport:
    """Record a verification's outcome in its engines' sidecars.

    Args:
        report: the result for all images.
        store: engine store.
        engines: the verified engines.
        changed_gates: limits that replaced the default ones, each as ``name=value``.

    Returns:
        The report, with a warning if the outcome could not be recorded: the store is read-only or its disk is
        full, or an engine was replaced during the verification.
    """
    now = datetime.now(timezone.utc)
    changed = GateLimits({}).changed(changed_gates).by_name
    try:
        for engine in engines:
            verification = Verification(
                engine_sha256=engine.sidecar.engine_sha256,
                verified_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                passed=report.passed,
                reference="golden" if report.golden else "pytorch",
                images=report.images,
                images_sha256=report.golden.sha256 if report.golden else report.images_sha256,
                image_count=report.image_count,
                changed_gates=tuple(f"{name}={limit:g}" for name, limit in changed.items()),
                contract_id=report.contract_id,
                weights_sha256=report.weights_sha256,
                created_by=report.created_by,
            )
            store.add_verification(engine, verification)
    except EngineError as error:
        # The result is still valid for the engine that was run.
        warning = f"the verification is not recorded, so --require-verified refuses the engine: {error}"
        return replace(report, warnings=(*report.warnings, warning))
    return report
