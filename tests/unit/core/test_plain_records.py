"""Records by the standard library: what fits is read, and what does not is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccr_deploy.core.plain_records import (
    FieldError,
    Matches,
    Within,
    load_versioned_json,
    read_record,
    to_json,
)
from ccr_deploy.errors import BundleError
from ccr_deploy.targets.options import (
    Batch,
    CpuOptions,
    CudaOptions,
    Options,
    PyTorchOptions,
    ResolvedTarget,
    RtxOptions,
    TensorRtOptions,
)


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Within(1, 9)]
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Matches("[a-z]+")]
    inner: Inner
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    table: dict[str, int]
    maybe: Inner | None
    flag: bool = False
    anything: object = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("forbidden is no name")


GOOD = {
    "name": "ab",
    "inner": {"size": 3},
    "pair": [1, 2.5],
    "many": [{"size": 1, "kind": "b"}, {"size": 2}],
    "table": {"x": 1},
    "maybe": None,
}


def test_what_fits_is_read() -> None:
    assert read_record(Outer, GOOD) == Outer(
        "ab", Inner(3), (1.0, 2.5), (Inner(1, "b"), Inner(2)), {"x": 1}, None
    )


def test_whole_numbers_become_floats_where_those_are_meant() -> None:
    assert [type(value) for value in read_record(Outer, GOOD).pair] == [float, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "field surprise: there is no such field"),
        ({"inner": {"size": 3, "x": 1}}, "field inner.x: there is no such field"),
        ({"inner": {}}, "field inner.size: missing"),
        ({"inner": 7}, "field inner: an object is needed, found 7"),
        ({"inner": {"size": "3"}}, "field inner.size: int is needed, found '3'"),
        ({"inner": {"size": 3.0}}, "field inner.size: int is needed"),
        ({"inner": {"size": True}}, "field inner.size: int is needed, found True"),
        ({"inner": {"size": 10}}, "field inner.size: 10 is not from 1 to 9"),
        ({"inner": {"size": 3, "kind": "c"}}, "field inner.kind: 'c' is none of a, b"),
        ({"inner": {"size": 3, "kind": ["a"]}}, "field inner.kind: ['a'] is none of a, b"),
        ({"name": "A"}, "field name: 'A' does not match [a-z]+"),
        ({"name": "ab\n"}, "field name: "),
        ({"name": "forbidden"}, "forbidden is no name"),
        ({"pair": [1]}, "field pair: 2 values are needed, found 1"),
        ({"pair": [1, "x"]}, "field pair.1: float is needed"),
        ({"pair": [1, False]}, "field pair.1: float is needed"),
        ({"pair": "xy"}, "field pair: a list is needed"),
        ({"many": [{"size": 1}, {"size": 0}]}, "field many.1.size: 0 is not from 1 to 9"),
        ({"table": {"x": "y"}}, "field table.x: int is needed"),
        ({"table": []}, "field table: an object is needed"),
        ({"maybe": {"size": 99}}, "field maybe.size: 99 is not"),
        ({"flag": 1}, "field flag: bool is needed, found 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_record(Outer, {**GOOD, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shown_in_short() -> None:
    with pytest.raises(FieldError) as caught:
        read_record(Outer, {**GOOD, "inner": "x" * 1000})
    assert len(str(caught.value)) < 100


OPTIONS = st.one_of(
    st.builds(CpuOptions, threads=st.integers(0, 1024)),
    st.builds(
        PyTorchOptions,
        threads=st.integers(0, 1024),
        device=st.sampled_from(["cpu", "cuda"]),
        compile_mode=st.sampled_from([None, "default", "max-autotune"]),
    ),
    st.builds(CudaOptions, tf32=st.booleans()),
    st.builds(TensorRtOptions, workspace_mib=st.integers(0, 99999), optimization_level=st.integers(0, 5)),
    st.builds(
        RtxOptions,
        compute_capabilities=st.lists(st.sampled_from(["8.6", "8.9", "12.0"]), min_size=1).map(tuple),
    ),
)


@given(OPTIONS, st.sampled_from([None, Batch(1, 2, 3)]))
@settings(deadline=None, max_examples=100)
def test_every_backend_s_options_come_back_as_their_own_kind(options: Options, batch: Batch | None) -> None:
    target = ResolvedTarget("some", "fp16", None, batch, options)
    assert read_record(ResolvedTarget, json.loads(to_json(target))) == target
    assert type(read_record(ResolvedTarget, json.loads(to_json(target))).options) is type(options)


@given(OPTIONS)
@settings(deadline=None, max_examples=50)
def test_pydantic_reads_the_same(options: Options) -> None:
    target = ResolvedTarget("some", "fp16", "plain", None, options)
    assert pydantic.TypeAdapter(ResolvedTarget).validate_json(to_json(target)) == target


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (CpuOptions, {"threads": -1}),
        (TensorRtOptions, {"optimization_level": 6}),
        (RtxOptions, {"compute_capabilities": []}),
        (RtxOptions, {"compute_capabilities": ["8"]}),
        (RtxOptions, {"compute_capabilities": ["current", "8.6"]}),
        (Batch, {"max": 4097}),
        (Batch, {"min": 2, "opt": 1, "max": 3}),
    ],
)
def test_both_readers_hold_to_the_same_constraints(kind: type, content: dict[str, object]) -> None:
    with pytest.raises(FieldError):
        read_record(kind, content)
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(kind).validate_json(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON, perhaps truncated"),
        (b"\xff", "not JSON"),
        (b"[]", "schema version None, this program reads 3"),
        (b'{"schema_version": 2}', "schema version 2, this program reads 3"),
    ],
)
def test_a_text_of_another_version_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_versioned_json(text, Path("some.json"), version=3, error=BundleError, remedy="do this")
    assert f"some.json: {message}" in str(caught.value)
    assert str(caught.value).endswith(": do this")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(FieldError, match=r"field pair\.1: a finite number is needed"):
        read_record(Outer, {**GOOD, "pair": [1, value]})


@dataclass(frozen=True)
class Versioned:
    version: Literal[1]


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_literal_is_of_its_own_type(value: object) -> None:
    with pytest.raises(FieldError, match="field version"):
        read_record(Versioned, {"version": value})


@pytest.mark.parametrize("version", ["true", "1.0", '"1"'])
def test_a_schema_version_is_a_whole_number(version: str) -> None:
    with pytest.raises(BundleError, match="schema version"):
        load_versioned_json(
            b'{"schema_version": %s}' % version.encode(), Path("x"), version=1, error=BundleError, remedy=""
        )


def test_names_of_fields_are_shown_in_short() -> None:
    with pytest.raises(FieldError) as caught:
        read_record(Outer, {**GOOD, "x" * 10_000: 1})
    assert len(str(caught.value)) < 100
