"""What was built last for a bundle and target is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.engine_factory import EngineFactory, stage_precisions
from ccr_deploy.engine_store import EngineStore
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle import Bundle


@pytest.fixture
def empty(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def test_nothing_was_chosen_in_a_new_store(empty: EngineStore, tiny_bundle: Bundle) -> None:
    assert empty.chosen(tiny_bundle, "cpu") == {}
    assert EngineFactory.of_last_build(tiny_bundle, "cpu", empty).precision("encoder") == "fp32"


def test_a_choice_is_kept_stage_by_stage_and_for_its_target_alone(
    empty: EngineStore, tiny_bundle: Bundle
) -> None:
    empty.path.mkdir()
    empty.choose(tiny_bundle, "cpu", {"encoder": "int8", "classifier": "fp16"})
    empty.choose(tiny_bundle, "cpu", {"classifier": "fp32"})
    assert empty.chosen(tiny_bundle, "cpu") == {"encoder": "int8", "classifier": "fp32"}
    assert empty.chosen(tiny_bundle, "cpu-openvino") == {}
    factory = EngineFactory.of_last_build(tiny_bundle, "cpu", empty)
    assert [factory.precision(stage) for stage in ("encoder", "classifier")] == ["int8", "fp32"]
    assert factory.precision("baseline") == "fp32"


def test_a_named_precision_goes_over_what_was_chosen(empty: EngineStore, tiny_bundle: Bundle) -> None:
    empty.path.mkdir()
    empty.choose(tiny_bundle, "cpu", stage_precisions("int8"))
    factory = EngineFactory.of_last_build(tiny_bundle, "cpu", empty, "fp16")
    assert factory.precision("classifier") == "fp16"


def test_a_damaged_note_is_an_error_that_names_it(empty: EngineStore, tiny_bundle: Bundle) -> None:
    empty.path.mkdir()
    empty.choose(tiny_bundle, "cpu", stage_precisions("int8"))
    (note,) = empty.path.glob("chosen.*.json")
    note.write_text('{"target": "cpu", "prec')
    with pytest.raises(EngineError, match=rf"{note.name}: damaged: remove it"):
        empty.chosen(tiny_bundle, "cpu")
