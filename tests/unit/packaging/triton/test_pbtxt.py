"""Protobuf text is read back by protobuf as it was written."""

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from ccr_deploy.packaging.triton.pbtxt import Symbol, entries, to_pbtxt

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def parsed(message):
    return text_format.Parse(to_pbtxt(message), model_config_pb2.ModelConfig())


@given(TEXT)
def test_any_text_round_trips(text):
    assert parsed({"name": text}).name == text


@given(st.dictionaries(TEXT, TEXT))
def test_any_map_round_trips(mapping):
    assert dict(parsed({"cc_model_filenames": entries(mapping)}).cc_model_filenames) == mapping


@given(st.dictionaries(TEXT, TEXT))
def test_a_map_of_messages_round_trips(mapping):
    parameters = {key: {"string_value": value} for key, value in mapping.items()}
    found = parsed({"parameters": entries(parameters)}).parameters
    assert {key: value.string_value for key, value in found.items()} == mapping


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": TEXT,
                "data_type": st.sampled_from(model_config_pb2.DataType.keys()).map(Symbol),
                "dims": st.lists(st.integers(-1, 2**62)),
                "optional": st.booleans(),
            }
        )
    )
)
def test_repeated_messages_numbers_symbols_and_booleans_round_trip(inputs):
    found = parsed({"input": inputs}).input
    assert [
        {
            "name": each.name,
            "data_type": model_config_pb2.DataType.Name(each.data_type),
            "dims": list(each.dims),
            "optional": each.optional,
        }
        for each in found
    ] == inputs


def test_none_and_empty_lists_are_omitted():
    message = {"name": "a", "max_batch_size": None, "input": [], "cc_model_filenames": entries({})}
    assert to_pbtxt(message) == 'name: "a"\n'


def test_fields_are_indented_below_their_message():
    source = {"name": "x", "data_type": Symbol("TYPE_UINT8"), "dims": [2, 3], "optional": False}
    assert to_pbtxt({"name": "a", "input": [source]}) == (
        'name: "a"\ninput {\n  name: "x"\n  data_type: TYPE_UINT8\n  dims: [2, 3]\n  optional: false\n}\n'
    )


def test_unsupported_type_is_refused():
    with pytest.raises(TypeError, match="bytes"):
        to_pbtxt({"name": b"a"})
