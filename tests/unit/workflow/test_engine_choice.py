"""The last build for a bundle and target is recorded and used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import EngineError
from ccr_deploy.targets.schema import load_target, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.resolved import ResolvedTarget


@pytest.fixture
def empty(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def built(precision: EnginePrecision) -> dict[Stage, ResolvedTarget]:
    """Return the record of a build for the target cpu in one precision."""
    target = load_target("cpu")
    return {stage: resolve(target, stage, None, precision) for stage in ("encoder", "classifier")}


def test_a_new_store_has_no_last_build(empty: EngineStore, tiny_bundle: Bundle) -> None:
    assert empty.chosen(tiny_bundle, "cpu") == {}
    assert EngineFactory.of_last_build(tiny_bundle, "cpu", empty).precision("encoder") == "fp32"


def test_the_last_build_is_recorded_by_stage_and_target(empty: EngineStore, tiny_bundle: Bundle) -> None:
    empty.path.mkdir()
    int8, fp16, fp32 = (built(precision) for precision in ("int8", "fp16", "fp32"))
    empty.choose(tiny_bundle, "cpu", {"encoder": int8["encoder"], "classifier": fp16["classifier"]})
    empty.choose(tiny_bundle, "cpu", {"classifier": fp32["classifier"]})
    expected = {"encoder": int8["encoder"], "classifier": fp32["classifier"]}
    assert empty.chosen(tiny_bundle, "cpu") == expected
    assert empty.chosen(tiny_bundle, "cpu-openvino") == {}
    factory = EngineFactory.of_last_build(tiny_bundle, "cpu", empty)
    assert [factory.precision(stage) for stage in ("encoder", "classifier")] == ["int8", "fp32"]
    assert factory.precision("baseline") == "fp32"


def test_a_given_precision_overrides_the_last_build(empty: EngineStore, tiny_bundle: Bundle) -> None:
    empty.path.mkdir()
    empty.choose(tiny_bundle, "cpu", built("int8"))
    factory = EngineFactory.of_last_build(tiny_bundle, "cpu", empty, "fp16")
    assert factory.precision("classifier") == "fp16"


def test_a_damaged_record_of_the_last_build_is_named(empty: EngineStore, tiny_bundle: Bundle) -> None:
    empty.path.mkdir()
    empty.choose(tiny_bundle, "cpu", built("int8"))
    (note,) = empty.path.glob("chosen.*.json")
    note.write_text('{"target": "cpu", "prec')
    with pytest.raises(EngineError, match=rf"{note.name}: damaged: run ccr-deploy build-engine"):
        empty.chosen(tiny_bundle, "cpu")
