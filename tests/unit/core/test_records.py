"""Records: valid content is read, invalid fields are named, and msgspec's limits are handled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.onnxruntime.cuda import CudaOptions
from ccr_deploy.backends.openvino.cpu import OpenVinoOptions
from ccr_deploy.backends.options import BackendOptions, Batch
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.core import records
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import (
    Record,
    canonical_json,
    convert,
    parse_versioned_json,
    read_toml,
    to_json,
)
from ccr_deploy.errors import BundleError
from ccr_deploy.targets.resolved import ResolvedTarget


class Inner(Record, frozen=True):
    size: Annotated[int, Meta(ge=1, le=9)]
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.size == 7:
            raise ValueError("7 is not a size")


class Square(Record, frozen=True, tag_field="shape", tag="square"):
    side: int


class Circle(Record, frozen=True, tag_field="shape", tag="circle"):
    radius: int


class Shape:
    """A marker class: the type of the field depends on a name in the content."""

    @classmethod
    def from_builtins(cls, content: object) -> object:
        assert isinstance(content, dict)
        return convert({"square": Square, "circle": Circle}[content["shape"]], content)


class NamedTriangle(Shape, Record, frozen=True, tag_field="shape", tag="triangle"):
    sides: tuple[int, int, int]


class Outer(Record, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[a-z]+\Z")]
    inner: Inner
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    table: dict[str, int]
    maybe: Inner | None
    flag: bool = False
    anything: object = None
    nested: dict[str, dict[Literal["p", "q"], Inner]] | None = None
    figure: Square | Circle | None = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("forbidden is not a name")


GOOD = {
    "name": "ab",
    "inner": {"size": 3},
    "pair": [1, 2.5],
    "many": [{"size": 1, "kind": "b"}, {"size": 2}],
    "table": {"x": 1},
    "maybe": None,
}


def test_valid_content_is_read() -> None:
    assert convert(Outer, GOOD) == Outer(
        "ab", Inner(3), (1.0, 2.5), (Inner(1, "b"), Inner(2)), {"x": 1}, None
    )


def test_integers_become_floats_in_float_fields() -> None:
    assert [type(value) for value in convert(Outer, GOOD).pair] == [float, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "field surprise: unknown field"),
        ({"inner": {"size": 3, "x": 1}}, "field inner.x: unknown field"),
        ({"inner": {}}, "field inner.size: missing"),
        ({"inner": 7}, "field inner: expected object, found 7"),
        ({"inner": {"size": "3"}}, "field inner.size: expected int, found '3'"),
        ({"inner": {"size": 3.5}}, "field inner.size: expected int, found 3.5"),
        ({"inner": {"size": True}}, "field inner.size: expected int, found True"),
        ({"inner": {"size": 10}}, "field inner.size: expected int <= 9, found 10"),
        ({"inner": {"size": 7}}, "field inner: 7 is not a size"),
        ({"inner": {"size": 3, "kind": "c"}}, "field inner.kind: expected one of a, b, found 'c'"),
        ({"inner": {"size": 3, "kind": ["a"]}}, "field inner.kind: expected str, found ['a']"),
        ({"name": "A"}, r"field name: expected str matching regex '^[a-z]+\\Z', found 'A'"),
        ({"name": "ab\n"}, "field name: "),
        ({"name": "forbidden"}, "forbidden is not a name"),
        ({"pair": [1]}, "field pair: expected array of length 2, found [1]"),
        ({"pair": [1, "x"]}, "field pair.1: expected float, found 'x'"),
        ({"pair": [1, False]}, "field pair.1: expected float, found False"),
        ({"pair": "xy"}, "field pair: expected array, found 'xy'"),
        ({"many": [{"size": 1}, {"size": 0}]}, "field many.1.size: expected int >= 1, found 0"),
        ({"table": {"x": "y"}}, "field table.x: expected int, found 'y'"),
        ({"table": {"x": 1, "y": 2, "z": None}}, "field table.z: expected int, found None"),
        ({"table": []}, "field table: expected object, found []"),
        ({"maybe": {"size": 99}}, "field maybe.size: expected int <= 9, found 99"),
        ({"flag": 1}, "field flag: expected bool, found 1"),
        (
            {"nested": {"one": {"p": {"size": 1}}, "two": {"q": {"size": 2, "kind": "z"}}}},
            "field nested.two.q.kind: expected one of a, b, found 'z'",
        ),
        ({"nested": {"one": {}, "two": {"r": {"size": 2}}}}, "nested.two: expected one of p, q, found 'r'"),
        ({"figure": {"shape": "oval"}}, "field figure.shape: expected one of square, circle, found 'oval'"),
        ({"figure": {"shape": "square", "radius": 1}}, "field figure.radius: unknown field"),
        ({"figure": {"side": 1}}, "field figure.shape: missing"),
    ],
)  # fmt: skip
def test_invalid_content_is_refused_with_the_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError) as caught:
        convert(Outer, {**GOOD, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(FieldError) as caught:
        convert(Outer, {**GOOD, "inner": "x" * 1000})
    assert len(str(caught.value)) < 100


def test_a_long_field_name_is_shortened_in_the_message() -> None:
    with pytest.raises(FieldError) as caught:
        convert(Outer, {**GOOD, "x" * 10_000: 1})
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "name",
    [
        "a` - at `$.b[...]",
        "` - at `$.many[7].size",
        "`",
        "a\nb",
        "\x1b[31m",
        "` - at `key` in `$.table",
        "$.x",
    ],
)
@pytest.mark.parametrize("where", ["outer", "inner", "table"])
def test_a_hostile_name_gives_a_printable_message(name: str, where: str) -> None:
    change = {"outer": {name: 1}, "inner": {"inner": {"size": 1, name: 1}}}
    change["table"] = {"table": {name: "x"}}
    with pytest.raises(FieldError) as caught:
        convert(Outer, {**GOOD, **change[where]})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["c` - at `$.inner.kind", "' - at `$.table[...]`", "x - at `$.many[9]`"])
def test_a_hostile_value_does_not_change_the_reported_field(value: str) -> None:
    with pytest.raises(FieldError, match=r"^field inner\.kind: expected one of a, b, found "):
        convert(Outer, {**GOOD, "inner": {"size": 1, "kind": value}})


def test_the_wrong_entry_among_many_is_found_in_few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    read = records.msgspec.convert

    def counted(content: object, kind: object, **options: object) -> object:
        reads.append(content)
        return read(content, kind, **options)

    monkeypatch.setattr(records.msgspec, "convert", counted)
    table: dict[str, object] = {str(number): number for number in range(10_000)}
    with pytest.raises(FieldError, match=r"^field table\.7777: expected int, found 'x'"):
        convert(Outer, {**GOOD, "table": {**table, "7777": "x"}})
    assert len(reads) < 20


class Drawing(Record, frozen=True):
    shape: Shape


def test_a_marker_field_is_read_and_written() -> None:
    content = {"shape": {"shape": "triangle", "sides": [3, 4, 5]}}
    assert to_json(Drawing(NamedTriangle((3, 4, 5))), indent=None) == json.dumps(
        content, separators=(",", ":")
    )


def test_an_invalid_value_in_a_marker_field_is_named_with_its_path() -> None:
    with pytest.raises(FieldError, match=r"field shape\.side: expected int, found 'long'"):
        convert(Drawing, {"shape": {"shape": "square", "side": "long"}})


def test_constraints_are_checked_on_reading_only() -> None:
    wrong = Inner(size=10)
    with pytest.raises(FieldError, match="field size: expected int <= 9, found 10"):
        convert(Inner, json.loads(to_json(wrong)))


def test_a_tag_cannot_have_the_name_of_a_field() -> None:
    with pytest.raises(ValueError, match="conflicts"):

        class Clash(Record, frozen=True, tag_field="shape", tag="clash"):
            shape: str


OPTIONS = st.one_of(
    st.builds(OnnxRuntimeOptions, threads=st.integers(0, 1024)),
    st.builds(OpenVinoOptions, threads=st.integers(0, 1024)),
    st.builds(
        PyTorchOptions,
        threads=st.integers(0, 1024),
        device=st.sampled_from(["cpu", "cuda"]),
        compile_mode=st.sampled_from([None, "default", "max-autotune"]),
    ),
    st.builds(
        PyTorchOptions,
        device=st.just("cuda"),
        fp16_cuda_graph=st.sampled_from([None, "iteration-major", "layer-major"]),
    ),
    st.builds(CudaOptions, tf32=st.booleans()),
    st.builds(TensorRtOptions, workspace_mib=st.integers(0, 99999), optimization_level=st.integers(0, 5)),
    st.builds(
        RtxOptions,
        compute_capabilities=st.lists(st.sampled_from(["8.6", "8.9", "12.0"]), min_size=1).map(tuple),
    ),
)


@given(OPTIONS, st.sampled_from([None, Batch((1, 2, 3))]))
@settings(deadline=None, max_examples=100)
def test_options_of_every_backend_are_read_back_as_their_type(
    options: BackendOptions, batch: Batch | None
) -> None:
    target = ResolvedTarget("fp16", None, batch, options)
    found = convert(ResolvedTarget, json.loads(to_json(target)))
    assert found == target
    assert type(found.options) is type(options)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (OnnxRuntimeOptions, {"threads": -1}),
        (TensorRtOptions, {"optimization_level": 6}),
        (RtxOptions, {"compute_capabilities": []}),
        (RtxOptions, {"compute_capabilities": ["8"]}),
        (RtxOptions, {"compute_capabilities": ["current", "8.6"]}),
        (Batch, {"sizes": [4097]}),
        (Batch, {"sizes": [2, 1]}),
        (Batch, {"sizes": [1, 2], "dynamic": True}),
    ],
)
def test_options_check_their_constraints(kind: type, content: dict[str, object]) -> None:
    with pytest.raises(FieldError):
        convert(kind, content)


class Versioned(Record, frozen=True):
    schema_version: int
    size: int = 1


def parse(text: bytes) -> Versioned:
    return parse_versioned_json(
        Versioned, text, Path("some.json"), version=3, error=BundleError, remedy="do this"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON, perhaps truncated"),
        (b"\xff", "not JSON"),
        (b"[]", "schema version None is not supported, expected 3"),
        (b'{"schema_version": 2}', "schema version 2 is not supported, expected 3"),
        (b'{"schema_version": 3, "size": "x"}', "field size: expected int, found 'x'"),
    ],
)
def test_an_unsupported_text_or_version_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(text)
    assert f"some.json: {message}" in str(caught.value)
    assert str(caught.value).endswith(": do this")


@pytest.mark.parametrize("version", ["true", "3.0", '"3"'])
def test_a_schema_version_must_be_an_integer(version: str) -> None:
    with pytest.raises(BundleError, match="schema version"):
        parse(b'{"schema_version": %s}' % version.encode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_numbers_are_refused(value: float) -> None:
    with pytest.raises(FieldError, match=r"field pair\.1: expected a finite number, found "):
        convert(Outer, {**GOOD, "pair": [1, value]})


class Measured(Record, frozen=True):
    cosine: float


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_numbers_are_written_unchanged_or_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Measured(value))
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(Measured(value))
    text = to_json(Measured(value), nan=True)
    assert "null" not in text
    assert str(convert(Measured, json.loads(text), nan=True).cosine) == str(value)


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_literal_accepts_only_its_own_type(value: object) -> None:
    class Numbered(Record, frozen=True):
        version: Literal[1]

    with pytest.raises(FieldError, match="field version"):
        convert(Numbered, {"version": value})


class Version(str):
    """A library's subclass of str."""

    __slots__ = ()


def test_strings_and_numbers_of_libraries_are_written_as_python_types() -> None:
    assert to_json({"version": Version("2.15"), "cosine": np.float64(0.5)}, indent=None) == (
        '{"version":"2.15","cosine":0.5}'
    )
    with pytest.raises(NotImplementedError, match="object cannot be written"):
        to_json({"names": object()})


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert (
        canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == b'{"a":"\\u00fc","b":1}'
    )


def test_toml_errors_name_the_file_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "inner.toml"
    path.write_text('size = 3\nkind = "c"\n')
    with pytest.raises(BundleError, match=r"inner\.toml: field kind: expected one of a, b, found 'c'"):
        read_toml(Inner, path, error=BundleError)
    path.write_text("size = nan\n")
    with pytest.raises(BundleError, match=r"inner\.toml: field size: expected a finite number"):
        read_toml(Inner, path, error=BundleError)


@given(st.recursive(st.floats() | st.integers() | st.text() | st.none(), st.lists))
def test_json_is_the_same_with_numbers_on_one_line(content: object) -> None:
    expected = json.loads(json.dumps(content))
    assert repr(json.loads(to_json(content, nan=True))) == repr(expected)


def test_a_list_of_numbers_is_on_one_line() -> None:
    assert to_json({"a": [1, -2.5e-07, 3], "b": [[1], []], "c": ["[\n1\n]", 2]}) == (
        '{\n  "a": [1, -2.5e-07, 3],\n  "b": [\n    [1],\n    []\n  ],\n'
        '  "c": [\n    "[\\n1\\n]",\n    2\n  ]\n}'
    )
