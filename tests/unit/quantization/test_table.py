"""Calibration tables are written, read, checked and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import pytest
from msgspec import structs

from ccr_deploy.errors import CalibrationError, WrongUsageError
from ccr_deploy.models.presets import default_preprocessing, preset
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import (
    CalibrationTable,
    StageTable,
    TensorRange,
    check_stage,
    compare_tables,
    read_table,
)

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle

STAGE = StageTable(
    tensors={
        "stem": TensorRange(low=-2, high=1, method="minmax"),
        "cell1/t1/hidden_state": TensorRange(low=-0.5, high=0.25, method="minmax"),
        "cell1/t2/hidden_state": TensorRange(low=-0.5, high=0.75, method="minmax"),
    },
)
TABLE = CalibrationTable(
    schema_version=1,
    created_by="test",
    graph_hashes={"encoder": "a" * 64, "classifier": "c" * 64},
    image_count=2,
    images_sha256="b" * 64,
    preprocessing=default_preprocessing(preset("demo")),
    versions={"onnxruntime": "1.24.4"},
    high_precision=("stem",),
    stages={"encoder": STAGE, "classifier": STAGE},
)


def changed(tmp_path: Path, change) -> Path:
    content = json.loads(TABLE.to_json())
    change(content)
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps(content))
    return path


def with_tensors(**changes: TensorRange | None) -> CalibrationTable:
    tensors = {**STAGE.tensors, **{name.replace("__", "/"): value for name, value in changes.items()}}
    stage = structs.replace(STAGE, tensors={name: value for name, value in tensors.items() if value})
    return structs.replace(TABLE, stages={"encoder": stage, "classifier": STAGE})


def test_a_written_table_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(TABLE.to_json())
    assert read_table(path) == TABLE


def test_tensors_are_sorted_so_that_tables_compare_line_by_line() -> None:
    tensors = json.loads(TABLE.to_json())["stages"]["encoder"]["tensors"]
    assert list(tensors) == sorted(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.update(surprise=1), "field surprise"),
        (lambda table: table.update(schema_version=2), "schema version 2"),
        (lambda table: table.pop("images_sha256"), "field images_sha256"),
        (
            lambda table: table["stages"].pop("classifier"),
            "stages and graph_hashes must have the keys",
        ),
        (lambda table: table.update(image_count=0), "field image_count"),
        (
            lambda table: table["stages"]["encoder"]["tensors"]["stem"].update(low=float("nan")),
            "field stages.encoder.tensors.stem.low",
        ),
        (
            lambda table: table["stages"]["encoder"]["tensors"]["stem"].update(high=float("inf")),
            "field stages.encoder.tensors.stem.high",
        ),
        (
            lambda table: table["stages"]["encoder"]["tensors"]["stem"].update(low=1.0),
            "field stages.encoder.tensors.stem: low 1 is not below high 1",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_field(tmp_path: Path, change, message: str) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(CalibrationError) as error:
        read_table(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match=r"none\.json: no such file"):
        read_table(tmp_path / "none.json")


def test_all_iterations_of_a_signal_have_one_scale() -> None:
    assert STAGE.scale_of({"cell1/hidden_state"}) == 0.75 / 127
    assert STAGE.scale_of({"stem", "cell1/hidden_state"}) == 2 / 127
    with pytest.raises(CalibrationError, match="no range for cell2/hidden_state"):
        STAGE.scale_of({"cell2/hidden_state"})


def test_magnitudes_are_returned_by_iteration() -> None:
    assert STAGE.magnitudes() == {"stem": {1: 2}, "cell1/hidden_state": {1: 0.5, 2: 0.75}}


def test_a_stage_is_checked_against_its_graph(tiny_bundle: Bundle) -> None:
    record = tiny_bundle.graph("encoder", "fp32", "iteration-major")
    model = ir.load(tiny_bundle.file(record.file))
    ranges = {name: TensorRange(low=-1, high=1, method="minmax") for name in quantized_activations(model)}
    where = Path("ranges.json")

    def check(tensors: dict[str, TensorRange], graph_hash: str = record.graph_hash) -> None:
        stages = {"encoder": StageTable(tensors=tensors), "classifier": STAGE}
        hashes = {"encoder": graph_hash, "classifier": ""}
        table = structs.replace(TABLE, stages=stages, graph_hashes=hashes)
        check_stage(table, "encoder", model, record.graph_hash, where)

    check(ranges)
    with pytest.raises(CalibrationError, match=r"ranges\.json: field graph_hashes\.encoder: 0{12}, the"):
        check(ranges, "0" * 64)
    with pytest.raises(CalibrationError, match=r"ranges\.json: no range for cell2/t1/hidden_state"):
        check({name: value for name, value in ranges.items() if name != "cell2/t1/hidden_state"})
    with pytest.raises(CalibrationError, match=r"ranges\.json: the graph has no tensor cell9/t1/hidden"):
        check({**ranges, "cell9/t1/hidden_state": ranges["cell2/t1/hidden_state"]})


def test_tables_are_compared_by_their_largest_ratio_first() -> None:
    wide = TensorRange(low=-1, high=3, method="entropy")
    other = with_tensors(stem=wide, cell1__t1__hidden_state=None)
    first, second = compare_tables(TABLE, other)
    assert (first.tensor, first.second, first.ratio) == ("cell1/t1/hidden_state", None, None)
    assert (second.stage, second.tensor, second.first, second.second) == ("encoder", "stem", 2, 3)
    assert second.ratio == 1.5
    assert compare_tables(TABLE, TABLE) == []


@pytest.mark.parametrize("magnitude", [1e-50, 1e-40, 1e300])
def test_a_range_without_a_scale_in_float32_is_refused(tmp_path: Path, magnitude: float) -> None:
    def change(content: dict[str, Any]) -> None:
        content["stages"]["encoder"]["tensors"]["stem"].update(low=-magnitude, high=magnitude)

    with pytest.raises(CalibrationError, match="give no scale in float32"):
        read_table(changed(tmp_path, change))


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf")])
def test_a_limit_that_is_not_finite_is_refused(tmp_path: Path, value: object) -> None:
    def change(content: dict[str, Any]) -> None:
        content["stages"]["encoder"]["tensors"]["stem"].update(high=value)

    with pytest.raises(CalibrationError, match=r"stages\.encoder\.tensors\.stem\.high"):
        read_table(changed(tmp_path, change))
