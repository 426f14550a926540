"""What is written as protobuf text, protobuf reads back."""

from dataclasses import dataclass, field

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from ccr_deploy.packaging.triton.model_config import DataType, ModelParameter
from ccr_deploy.packaging.triton.pbtxt import to_pbtxt

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@dataclass(frozen=True)
class Model:
    """Some fields of protobuf's `ModelConfig`, of every kind."""

    name: str = ""
    max_batch_size: int | None = None
    input: tuple["Input", ...] = ()
    cc_model_filenames: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, ModelParameter] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """Some fields of an input."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]
    optional: bool


def parsed(message):
    return text_format.Parse(to_pbtxt(message), model_config_pb2.ModelConfig())


@given(TEXT)
def test_any_text_survives(text):
    assert parsed(Model(name=text)).name == text


@given(st.dictionaries(TEXT, TEXT))
def test_any_map_survives(entries):
    assert dict(parsed(Model(cc_model_filenames=entries)).cc_model_filenames) == entries


@given(st.dictionaries(TEXT, TEXT))
def test_a_map_of_messages_survives(entries):
    parameters = {key: ModelParameter(value) for key, value in entries.items()}
    found = parsed(Model(parameters=parameters)).parameters
    assert {key: value.string_value for key, value in found.items()} == entries


@given(
    st.lists(
        st.builds(
            Input,
            TEXT,
            st.sampled_from(DataType),
            st.lists(st.integers(-1, 2**62)).map(tuple),
            st.booleans(),
        )
    )
)
def test_repeated_messages_numbers_symbols_and_truths_survive(inputs):
    found = parsed(Model(input=tuple(inputs))).input
    assert [
        (each.name, each.data_type, tuple(each.dims), each.optional) for each in found
    ] == [
        (each.name, model_config_pb2.DataType.Value(each.data_type.name), each.dims, each.optional)
        for each in inputs
    ]  # fmt: skip


def test_what_is_none_or_empty_is_left_out():
    assert to_pbtxt(Model(name="a")) == 'name: "a"\n'


def test_fields_are_indented_below_their_message():
    message = Model(name="a", input=(Input("x", DataType.TYPE_UINT8, (2, 3), optional=False),))
    assert to_pbtxt(message) == (
        'name: "a"\ninput {\n  name: "x"\n  data_type: TYPE_UINT8\n  dims: [2, 3]\n  optional: false\n}\n'
    )


def test_what_protobuf_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="bytes"):
        to_pbtxt(Model(name=b"a"))
