"""Read from TensorRT's engine inspector the precision in which an engine executes its convolutions.

The inspector's notation of a layer's input type depends on the version: ``"Format/Datatype": "Row major Int8
format"`` up to TensorRT 10, and ``"Datatype": "Int8"`` since 11. A layer's ``Metadata`` lists the nodes of
the graph that it executes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, get_args

from ccr_deploy.core.precisions import Precision
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ccr_deploy.backends.build_facts import ExecutedConvolutions

_ONNX_NAME = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_CONVOLVES = re.compile("conv|correlation|gemm", re.IGNORECASE)
_PRECISIONS: tuple[tuple[re.Pattern[str], Precision], ...] = (
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(half|fp16)\b", re.IGNORECASE), "fp16"),
    (re.compile(r"\b(float|fp32)\b", re.IGNORECASE), "fp32"),
)


def inspect(library: Any, plan: Any) -> str:  # noqa: ANN401 -- the library has no types
    """Return the inspector's JSON for a plan that this process has just built.

    Raises:
        EngineError: if this machine cannot deserialize the plan.
    """
    from polygraphy.backend.trt import get_trt_logger

    runtime = library.Runtime(get_trt_logger())  # TensorRT supports one logger per process: the builder's
    if hasattr(runtime, "engine_host_code_allowed"):
        # A version-compatible plan contains the runtime that executes it. This process has just built it.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError("the engine was built, but this machine cannot deserialize it")
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(library.LayerInformationFormat.JSON))


def executed_convolutions(layers_json: str, convolutions: Collection[str]) -> ExecutedConvolutions:
    """Count the graph's convolutions by the precision of the layers that execute them.

    Args:
        layers_json: the inspector's output.
        convolutions: the names of the graph's convolutions.

    Raises:
        EngineError: if the text is not the output of the inspector.
    """
    try:
        layers = json.loads(layers_json)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the engine inspector's output cannot be read ({error})") from error
    found = _precisions([layer for layer in layers if isinstance(layer, dict)])
    counts: ExecutedConvolutions = dict.fromkeys((*reversed(get_args(Precision)), "unknown"), 0)
    for name in convolutions:
        counts[found.get(name, "unknown")] += 1
    return counts


def _precisions(layers: Iterable[Mapping[str, Any]]) -> dict[str, Precision]:
    """Return the precision of every graph node that a convolution layer executes."""
    found: dict[str, Precision] = {}
    for layer in layers:
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"
        precision = _input_precision(layer)
        if _CONVOLVES.search(kind) and precision:
            found.update(dict.fromkeys(_nodes(layer), precision))
    return found


def _nodes(layer: Mapping[str, Any]) -> list[str]:
    """Return the graph's nodes in a layer; versions without metadata list them only in the layer's name."""
    named = _ONNX_NAME.findall(str(layer.get("Metadata", "")))
    return named or [part.strip() for part in str(layer.get("Name", "")).split(" + ")]


def _input_precision(layer: Mapping[str, Any]) -> Precision | None:
    inputs = layer.get("Inputs") or [{}]
    text = str(inputs[0].get("Datatype") or inputs[0].get("Format/Datatype") or "")
    return next((precision for pattern, precision in _PRECISIONS if pattern.search(text)), None)
