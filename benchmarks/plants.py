"""Faults to plant into bundles and engines, and what `verify` should find; see `benchmarks.planting`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from msgspec import structs

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.stages import DEFAULT_SCHEDULE
from ccr_deploy.export.stage_graph import graph_of_weights, stage_graph
from ccr_deploy.models.chain import build_network
from ccr_deploy.models.config import CUT_STAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.verification.results import Cause, FaultyStage, Way

    Edit = Callable[[Bundle, ir.Model], ir.Model]


IN_ENGINE = "FP32 engine"


@dataclass(frozen=True)
class Plant:
    """A fault, where it is planted, and what a verification should find.

    `edit` returns the faulty graph of a stage in `graph`'s precision; without it, the class list is shuffled.
    If `where` is `IN_ENGINE`, the bundle stays as it is, and its engine is replaced by the faulty graph's.
    """

    fault: str
    where: str
    stage: FaultyStage
    cause: Cause
    step: Way
    edit: Edit | None
    precision: Precision = "fp32"
    graph: Precision = "fp32"

    @property
    def is_in_engine(self) -> bool:
        """Whether the fault is in the engine alone."""
        return self.where == IN_ENGINE


def swapped_channels(_: Bundle, model: ir.Model) -> ir.Model:
    """Swap two channels of the code."""

    def swapped(weight: np.ndarray) -> np.ndarray:
        order = np.arange(len(weight))
        order[[3, 5]] = order[[5, 3]]
        return weight[order]

    return _with_constant(model, "binarizer/weight", swapped)


def dead_channel(_: Bundle, model: ir.Model) -> ir.Model:
    """Set the weights of one channel of the code to 0; its bits are then all 1."""

    def zeroed(weight: np.ndarray) -> np.ndarray:
        result = weight.copy()
        result[2] = 0
        return result

    return _with_constant(model, "binarizer/weight", zeroed)


def reversed_bits(_: Bundle, model: ir.Model) -> ir.Model:
    """Pack or unpack the bits of each byte in reverse order."""
    if "pack/mul/constant_1" in model.graph.initializers:
        return _with_constant(model, "pack/mul/constant_1", lambda values: values[::-1].copy())
    return _with_constant(model, "unpack/gather/constant_0", lambda table: table[:, ::-1].copy())


def bgr(_: Bundle, model: ir.Model) -> ir.Model:
    """Reverse the image's channels before anything else."""
    image = model.graph.inputs[0]
    readers = list(image.uses())
    reverse = ir.tensor(np.array([2, 1, 0]), name="bgr/order")
    order = ir.Value(
        name=reverse.name,
        const_value=reverse,
        shape=ir.Shape([3]),
        type=ir.TensorType(reverse.dtype),
    )
    model.graph.register_initializer(order)
    gather = ir.node("Gather", [image, order], {"axis": 3}, name="bgr")
    gather.outputs[0].name, gather.outputs[0].type, gather.outputs[0].shape = "bgr", image.type, image.shape
    model.graph.insert_before(model.graph[0], gather)
    for reader, index in readers:
        reader.replace_input_with(index, gather.outputs[0])
    return model


def other_normalisation(_: Bundle, model: ir.Model) -> ir.Model:
    """Normalise with ImageNet's mean and standard deviation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    offset, scale = (255 * mean).reshape(3, 1, 1), (1 / (255 * std)).reshape(3, 1, 1)
    model = _with_constant(model, "normalise/sub/constant_1", lambda _: offset.astype(np.float32))
    return _with_constant(model, "normalise/constant_1", lambda _: scale.astype(np.float32))


def one_iteration_less(bundle: Bundle, _: ir.Model) -> ir.Model:
    """Unroll one iteration less."""
    manifest = bundle.manifest
    fewer = manifest.model.iterations - 1
    shorter = structs.replace(
        manifest,
        model=structs.replace(manifest.model, iterations=fewer),
        contract=structs.replace(manifest.contract, iterations=fewer),
    )
    return graph_of_weights(Bundle(bundle.path, shorter), "encoder", DEFAULT_SCHEDULE)


def changed_weight(_: Bundle, model: ir.Model) -> ir.Model:
    """Change one value of one weight, as a damaged byte would."""

    def changed(weight: np.ndarray) -> np.ndarray:
        result = weight.copy()
        result[0, 0, 1, 1] = 8 * np.abs(weight).max()
        return result

    return _with_constant(model, "cell2/input_conv/weight", changed)


def clipped_range(_: Bundle, model: ir.Model) -> ir.Model:
    """Divide the range of one quantized activation by 32."""
    return _with_constant(
        model, "cell2/t1/hidden_state_scale_1", lambda scale: (scale / 32).astype(scale.dtype)
    )


def another_cut(bundle: Bundle, _: ir.Model) -> ir.Model:
    """Use a classifier whose ResNet-18 is cut at another stage."""
    manifest = bundle.manifest
    cut = next(name for name in CUT_STAGE if name != manifest.model.classifier.cut)
    config = structs.replace(manifest.model, classifier=structs.replace(manifest.model.classifier, cut=cut))
    preprocessing = manifest.contract.preprocessing
    network = build_network("classifier", config, preprocessing)
    return stage_graph(network.eval(), config, preprocessing, None)


def shuffled_logits(_: Bundle, model: ir.Model) -> ir.Model:
    """Return the logits of the classes in another order."""
    model = _with_constant(model, "fc/weight", lambda weight: np.roll(weight, 1, axis=0))
    return _with_constant(model, "fc/bias", lambda bias: np.roll(bias, 1))


PLANTS = (
    Plant("swapped channels", "FP32 graph", "encoder", "swapped-channels", "graph", swapped_channels),
    Plant("wrong bit order", "FP32 graph, packing", "encoder", "bit-order", "graph", reversed_bits),
    Plant("wrong bit order", "FP32 graph, unpacking", "classifier", "bit-order", "graph", reversed_bits),
    Plant("BGR for RGB", "FP32 graph", "encoder", "bgr", "graph", bgr),
    Plant("BGR for RGB", IN_ENGINE, "encoder", "bgr", "engine", bgr),
    Plant("wrong normalisation", "FP32 graph", "encoder", "normalisation", "graph", other_normalisation),
    Plant("T - 1 iterations", "FP32 graph", "encoder", "iterations", "graph", one_iteration_less),
    Plant("T - 1 iterations", IN_ENGINE, "encoder", "iterations", "engine", one_iteration_less),
    Plant("one changed weight", "FP32 graph", "encoder", "changed-weight", "graph", changed_weight),
    Plant(
        "one changed weight",
        "FP32 graph, INT8 chain",
        "encoder",
        "changed-weight",
        "fp32-graph",
        changed_weight,
        precision="int8",
    ),
    Plant("one changed weight", IN_ENGINE, "encoder", "unknown", "engine", changed_weight),
    Plant(
        "clipped calibration range",
        "INT8 graph",
        "encoder",
        "clipped-range",
        "graph",
        clipped_range,
        precision="int8",
        graph="int8",
    ),
    Plant("classifier of another cut", "FP32 graph", "classifier", "other-cut", "graph", another_cut),
    Plant("shuffled class list", "manifest", "class names", "shuffled-classes", "pytorch", None),
    Plant("shuffled class list", "FP32 graph", "classifier", "shuffled-classes", "graph", shuffled_logits),
    Plant("dead channel", "FP32 graph", "encoder", "dead-channel", "graph", dead_channel),
)
"""Every fault but saturated INT8, which a processor makes."""


def _with_constant(model: ir.Model, name: str, change: Callable[[np.ndarray], np.ndarray]) -> ir.Model:
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor(change(value.const_value.numpy()), name=name)
    return model
