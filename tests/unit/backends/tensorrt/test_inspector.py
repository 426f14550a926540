"""The engine inspector's notations of the precision of a layer."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from ccr_deploy.backends.tensorrt.inspector import executed_convolutions
from ccr_deploy.core.precisions import Precision
from ccr_deploy.errors import EngineError

NONE = dict.fromkeys((*get_args(Precision), "unknown"), 0)


def text(*layers: object) -> str:
    return json.dumps({"Layers": layers})


def myelin(name: str, datatype: str, kind: str = "correlation", metadata: str | None = None) -> dict:
    """A layer as described by TensorRT-RTX 1.7."""
    return {
        "Name": f"{name}_U62_myl0_6",
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Dimensions": [1, 64, 112, 112], "Datatype": datatype, "Format": "(NHWC)"}],
        "Constants": [{"Name": "c", "Datatype": datatype}, {"Name": "scale", "Datatype": "Float"}],
        "Outputs": [{"Name": "y", "Datatype": "Float"}],
        "TacticName": "__myelin_CASK_STUB",
        "Metadata": metadata or f"[ONNX Layer: {name}]\x1e[ONNX Layer: stem_DequantizeLinear]",
    }


def cask(name: str, format_and_type: str, **more: object) -> dict:
    """A layer as described by TensorRT 8 to 10."""
    return {
        "Name": name,
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [{"Name": "x", "Location": "Device", "Format/Datatype": format_and_type}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
        **more,
    }


def test_layers_of_tensorrt_rtx_are_counted() -> None:
    layers = text(
        myelin("stem", "Half"),
        myelin("cell1/input_conv", "Int8"),
        myelin("cell1/t2/hidden_conv", "Int8"),
        myelin("binarizer", "Float"),
    )
    names = ["stem", "cell1/input_conv", "cell1/t2/hidden_conv", "binarizer"]
    assert executed_convolutions(layers, names) == NONE | {"int8": 2, "fp16": 1, "fp32": 1}


@pytest.mark.parametrize(
    ("description", "precision"),
    [
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("Thirty-two wide channel vectorized row major INT8 format", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear FP16 format", "fp16"),
        ("Half", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("BFloat16", "unknown"),
        ("FP8", "unknown"),
        ("Unknown format", "unknown"),
    ],
)
def test_type_descriptions_are_mapped_to_precisions(description: str, precision: str) -> None:
    metadata = "[ONNX Layer: a]\x1f[ONNX Layer: b]"
    found = executed_convolutions(text(cask("a + b", description, Metadata=metadata)), ["a"])
    assert found == NONE | {precision: 1}


def test_without_metadata_the_name_lists_the_nodes() -> None:
    layers = text(cask("w + QuantizeLinear_8 + layer2/0/conv1 + PWN(relu)", "Row major Int8 format"))
    assert executed_convolutions(layers, ["layer2/0/conv1"])["int8"] == 1


def test_layers_that_are_not_convolutions_are_ignored() -> None:
    layers = text(myelin("stem", "Int8", kind="kgen"), myelin("stem", "Int8", kind="Reformat"))
    assert executed_convolutions(layers, ["stem"]) == NONE | {"unknown": 1}


def test_a_convolution_that_no_layer_names_is_unknown() -> None:
    foreign = {"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []}
    assert executed_convolutions(text(foreign, "a + b"), ["a", "b"]) == NONE | {"unknown": 2}


@pytest.mark.parametrize("answer", ["", "{", "[]", "{}", '{"Bindings": []}'])
def test_text_that_is_not_inspector_output_is_refused(answer: str) -> None:
    with pytest.raises(EngineError, match="inspector's output cannot be read"):
        executed_convolutions(answer, [])
