"""Read the kernels of an engine from the JSON of TensorRT's engine inspector.

The notation depends on the version. The type of a tensor is in its ``"Format/Datatype"`` up to TensorRT 10
(``"Thirty-two wide channel vectorized row major Int8 format"``, ``"Half"``) and in its ``"Datatype"`` since
11; an engine with a dynamic batch has ``"N/A due to dynamic shapes"`` there. The weights of a convolution are
its ``"Weights"`` up to 10 and its ``"Constants"`` in layers of the compiler Myelin, which are all since 11.
A layer's ``"Metadata"`` lists the nodes of the graph that it executes; without, its name lists them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.kernel_counting import Kernel, Tensor, list_kernels
from ccr_deploy.backends.tensorrt.kernel_log import NODE, PROFILE, kind_of, type_named
from ccr_deploy.backends.tensorrt.tactics import operands_of
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ccr_deploy.backends.kernels import ElementType, KernelKind, KernelListing

_SUFFIX = re.compile(r" \[profile (\d+)\]")
_WORD = re.compile(r"\w+")
_NO_KERNELS = frozenset({"noop", "constant", "signal", "wait"})
"""Types of layers that run no kernel."""
_KINDS: tuple[tuple[re.Pattern[str], KernelKind], ...] = (
    (re.compile(r"conv(?!ert)|correlation"), "convolution"),
    (re.compile(r"gemm|matrixmultiply|matmul|fullyconnected"), "matrix product"),
    (re.compile(r"resize"), "resampling"),
    (re.compile(r"shapehostcopy|shape_call"), "shape"),
    (re.compile(r"reformat|shuffle|slice|concat|copy|cast|gather|padding"), "copy"),
    (re.compile(r"pointwise|elementwise|activation|unary|scale|softmax|reduce"), "fused elementwise"),
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


def read_layers(
    layers_json: str, convolutions: Collection[str], device: str, batches: Sequence[int | None]
) -> tuple[KernelListing, ...]:
    """Return the kernels of an engine, one listing for each optimization profile.

    Args:
        layers_json: the inspector's output.
        convolutions: the names of the graph's convolutions.
        device: the GPU that the engine was built on.
        batches: the batch of each profile; None for a profile with a dynamic batch.

    Returns:
        The listings of the profiles that the inspector lists; none if it lists only the names of layers.

    Raises:
        EngineError: if the text is not the output of the inspector.
    """
    profiles: list[list[Kernel]] = [[] for _ in batches]
    try:
        layers = [
            layer
            for layer in json.loads(layers_json)["Layers"]
            if isinstance(layer, dict) and str(layer.get("LayerType", "")).lower() not in _NO_KERNELS
        ]
        for layer, number in zip(layers, _profiles(layers, len(batches)), strict=True):
            profiles[number].append(_kernel(layer))
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise EngineError(f"the engine inspector's output cannot be read ({error})") from error
    return tuple(
        list_kernels(kernels, convolutions, devices=(device,), batch=batch)
        for kernels, batch in zip(profiles, batches, strict=True)
        if kernels
    )


def _profiles(layers: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Return the number of the profile of each layer, which its name tells.

    If Myelin generated all layers, its number in their names is that of the profile, as in TensorRT-RTX.
    Otherwise it counts Myelin's regions, and names of later profiles than the first end in their number.
    """
    names = [str(layer.get("Name", "")) for layer in layers]
    generated = [int(found[1]) for name in names if (found := PROFILE.search(name))]
    if len(generated) == len(names) and set(generated) == set(range(count)):
        return generated
    return [int(found[1]) if (found := _SUFFIX.search(name)) else 0 for name in names]


def _kernel(layer: Mapping[str, Any]) -> Kernel:
    kind = _kind(layer)
    inputs, weights = _tensors(layer.get("Inputs")), _weights(layer)
    if kind in {"convolution", "matrix product"}:
        inputs, weights = _with_known_operands(inputs, weights, str(layer.get("TacticName", "")))
    return Kernel(
        kind=kind,
        inputs=inputs,
        weights=weights,
        outputs=_tensors(layer.get("Outputs")),
        nodes=_nodes(layer),
    )


def _kind(layer: Mapping[str, Any]) -> KernelKind:
    layer_type = str(layer.get("LayerType", ""))
    names = f"{layer_type} {layer.get('ParameterType', '')}".lower()
    if known := next((kind for pattern, kind in _KINDS if pattern.search(names)), None):
        return known
    return kind_of(str(layer.get("Name", "")), layer_type)


def _nodes(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the graph's nodes in a layer; versions without metadata list them only in the layer's name."""
    if named := NODE.findall(str(layer.get("Metadata", ""))):
        return tuple(named)
    return tuple(part.strip() for part in _SUFFIX.sub("", str(layer.get("Name", ""))).split(" + "))


def _tensors(described: object) -> tuple[Tensor, ...]:
    entries = described if isinstance(described, list) else []
    return tuple(
        Tensor(name=str(entry.get("Name", "")), dimensions=_dimensions(entry), type=_type(entry))
        for entry in entries
        if isinstance(entry, dict)
    )


def _dimensions(tensor: Mapping[str, Any]) -> tuple[int, ...] | None:
    sizes = tensor.get("Dimensions")
    return tuple(sizes) if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes) else None


def _type(tensor: Mapping[str, Any]) -> ElementType:
    """Return the data type of a tensor, the only word of its description that names one."""
    described = str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or "")
    types = (type_named(word) for word in _WORD.findall(described))
    return next((kind for kind in types if kind != "unknown"), "unknown")


def _weights(layer: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return the weights of a layer and then its bias, if it has them."""
    if "Constants" in layer:
        return _tensors(layer["Constants"])
    tensors = []
    for name in ("Weights", "Bias"):
        described = layer.get(name)
        if isinstance(described, dict) and described.get("Count"):
            count = int(described["Count"])
            shape = _filter_shape(layer, count) if name == "Weights" else (count,)
            tensors.append(Tensor(name, shape, type_named(str(described.get("Type", "")))))
    return tuple(tensors)


def _filter_shape(layer: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """Return the shape of a convolution's weights, (K, C, R, S), from their number and the layer's fields."""
    maps, kernel = layer.get("OutMaps"), layer.get("Kernel")
    if not maps or not isinstance(kernel, list):
        return (count,)
    per_channel = int(maps)
    for size in kernel:
        per_channel *= size
    return int(maps), count // per_channel, *kernel


def _with_known_operands(
    inputs: tuple[Tensor, ...], weights: tuple[Tensor, ...], tactic: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Complete the types of a convolution's data and weights by its tactic.

    If the tactic contradicts a type that the inspector states, both are unknown: one of them is read wrongly.
    """
    named = operands_of(tactic)
    pairs = [
        (tensors[0].type if tensors else "unknown", type_)
        for tensors, type_ in ((inputs, named.input), (weights, named.weights))
    ]
    types = [_agreed(pair) for pair in pairs]
    if None in types:
        types = ["unknown", "unknown"]
    data, filters = types
    return _with_first_type(inputs, "data", data), _with_first_type(weights, "Weights", filters)


def _agreed(types: Iterable[ElementType]) -> ElementType | None:
    """Return the type that is known; None if two differ."""
    known = set(types) - {"unknown"}
    if len(known) > 1:
        return None
    return known.pop() if known else "unknown"


def _with_first_type(tensors: tuple[Tensor, ...], name: str, type_: ElementType | None) -> tuple[Tensor, ...]:
    """Return tensors, at least one, of which the first has a type."""
    first, *rest = tensors or (Tensor(name, None, "unknown"),)
    return Tensor(first.name, first.dimensions, type_ or "unknown"), *rest
