"""What is told about the precision in which an engine executes its convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.engine_lines import engine_lines, unverified_line
from tests.support.plans import L4, fleet_target, put_plan

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.sidecar import Sidecar


@pytest.fixture
def sidecar(tiny_bundle: Bundle, tmp_path: Path) -> Sidecar:
    store = EngineStore(tmp_path / "engines")
    return put_plan(tiny_bundle, fleet_target(tmp_path), store, "encoder", L4).sidecar


def in_precision(sidecar: Sidecar, precision: EnginePrecision, **executed: int) -> Sidecar:
    """Return a sidecar of an engine with the precisions of its convolutions; none if none is known."""
    key = structs.replace(sidecar.key, precision=precision)
    return structs.replace(sidecar, key=key, build=BuildFacts(executed_convolutions=executed or None))


@pytest.mark.parametrize(
    ("executed", "unknown"),
    [
        ({"fp32": 0, "fp16": 0, "int8": 0, "unknown": 40}, "40 of 40"),
        ({"fp32": 0, "fp16": 2, "int8": 30, "unknown": 8}, "8 of 40"),
    ],
)
def test_int8_of_unknown_precision_does_not_look_verified(
    sidecar: Sidecar, executed: dict[str, int], unknown: str
) -> None:
    found = in_precision(sidecar, "int8", **executed)
    line = (
        f"the precision of {unknown} convolutions is unknown: "
        "whether the engine executes them in INT8 is not verified"
    )
    assert unverified_line(found) == line
    assert line in engine_lines(found)


@pytest.mark.parametrize(
    ("precision", "executed"),
    [
        ("int8", {"fp32": 0, "fp16": 2, "int8": 38, "unknown": 0}),
        ("fp16", {"fp32": 0, "fp16": 0, "int8": 0, "unknown": 40}),  # nothing was promised
        ("int8", {}),  # of a library that reports none
    ],
)
def test_other_engines_have_no_such_line(
    sidecar: Sidecar, precision: EnginePrecision, executed: dict[str, int]
) -> None:
    assert unverified_line(in_precision(sidecar, precision, **executed)) is None
