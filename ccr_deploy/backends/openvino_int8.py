"""OpenVINO's INT8: what is done to a graph before OpenVINO compiles it, and the check of the result.

Its weights are held to 7 bits if the CPU needs that (`ccr_deploy.backends.int8_weights`). And a defect of
OpenVINO's low-precision transformations is kept away, seen with OpenVINO 2026.4: if a quantized convolution's
output is read by a Split and by an Add (the first cell's gates, which all iterations share), its scale is
applied twice and the code is noise. A Clamp behind the convolution, wide enough never to clamp, keeps the
scale where it is and costs nothing. Of the other schedules some come out wrong too, depending on the
instruction set, so that every engine is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ccr_deploy.errors import EngineError
from ccr_deploy.images import load_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from ccr_deploy.backends.base import Arrays, BuildSource, Runner

LARGE = 60000.0
"""Below FP16's largest number, and above every activation that AutoCast lets into FP16."""

MAX_DEVIATION_RATIO = 2
"""How much further an engine may be from its graph than its graph is from FP32.

Two correct computations of one quantized graph round some activations to neighbouring steps, so that they
differ as much as two draws of the quantization error: measured 0.3 to 1.1 times that error for right engines,
8.7 times and more for sums that saturate, 500 times and more for graphs that were transformed wrongly.
"""
FLOATING_POINT_DEVIATION = 2**-10
"""Relative; what FP16's rounding makes anyway, for graphs whose quantization changes next to nothing."""
CHECKED_IMAGES = 4


def int8_model(core: Any, graph: object, weight_bits: Literal[7, 8]) -> Any:  # noqa: ANN401 -- no types
    """Read an INT8 graph with its weights held to some bits.

    Args:
        core: OpenVINO's Core.
        graph: the ONNX file.
        weight_bits: 8 leaves the graph as it is written.
    """
    model = core.read_model(graph)
    if weight_bits == 7:
        hold_weights_to_7_bits(model)
    return model


def hold_weights_to_7_bits(model: Any) -> None:  # noqa: ANN401
    """Multiply the scales of an OpenVINO model's weight quantizers by 127/63; nothing else changes."""
    from openvino import Type, opset13

    for quantizer in _weight_quantizers(model):
        for node in list(_dequantizations(quantizer)):
            scale = node.input_value(1)
            factor = np.array(127 / 63, dtype=scale.get_element_type().to_dtype())
            larger = opset13.multiply(scale, factor)
            node.input(1).replace_source_output(larger.output(0))
        # The quantizer's limits grow exactly as the scale did, which FP16 rounds.
        growth = opset13.divide(opset13.convert(larger, Type.f32), opset13.convert(scale, Type.f32))
        for index in (1, 2):
            limit = opset13.multiply(quantizer.input_value(index), growth)
            quantizer.input(index).replace_source_output(limit.output(0))


def separate_shared_scales(model: Any) -> None:  # noqa: ANN401
    """Put a Clamp behind every convolution of an OpenVINO model that several operators read."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        readers = list(node.output(0).get_target_inputs())
        if len(readers) > 1:
            clamped = opset13.clamp(node.output(0), -LARGE, LARGE)
            for reader in readers:
                reader.replace_source_output(clamped.output(0))


def show_activations(model: Any) -> None:  # noqa: ANN401
    """Add the pre-binarization activations to an encoder's outputs; a classifier stays as it is."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "GreaterEqual":  # a bit is 1 if the activation is >= 0
            model.add_outputs([node.input_value(0)])
            return


@dataclass(frozen=True)
class CheckedRunners:
    """The same stage four times; all but `engine` show an encoder's activations as their last output.

    `observed` is compiled as the engine is, `as_written` computes every Q/DQ pair as rounding and the rest in
    floating point, and `fp32` is the graph before it was quantized.
    """

    engine: Runner
    observed: Runner
    as_written: Runner
    fp32: Runner


def check_agreement(source: BuildSource, runners: CheckedRunners, library: str) -> None:
    """Compare an INT8 engine with its graph as it is written, on the bundle's samples or random codes.

    Args:
        source: what the engine is built from.
        runners: the engine and what it is compared with.
        library: OpenVINO's name and version, for the message.

    Raises:
        EngineError: rounding does not explain how much they differ.
    """
    feeds = _feeds(source)
    observed, as_written, fp32 = (
        list(runner.infer(feeds).values()) for runner in (runners.observed, runners.as_written, runners.fp32)
    )
    deviation = relative_deviation(observed[-1], as_written[-1])
    of_quantization = relative_deviation(as_written[-1], fp32[-1])
    limit = max(MAX_DEVIATION_RATIO * of_quantization, FLOATING_POINT_DEVIATION)
    agrees = deviation <= limit
    if source.stage == "encoder":  # to show its activations must not have changed what it computes
        (code,) = runners.engine.infer(feeds).values()
        agrees = agrees and is_code_of(code, observed[-1], limit)
    if not agrees:
        schedule = f" {source.target.schedule}" if source.target.schedule else ""
        raise EngineError(
            f"{source.graph}: {library} computes this INT8{schedule} {source.stage} wrongly: its activations "
            f"deviate by {100 * deviation:.3g} % from the graph as written, which quantization moved by "
            f"{100 * of_quantization:.3g} %: use {_remedy(source)}"
        )


def is_code_of(code: npt.NDArray[np.generic], activations: npt.NDArray[np.generic], tolerance: float) -> bool:
    """Tell whether a packed code's bits are the activations' signs, but for activations next to zero.

    Args:
        code: ``uint8 [N, bytes]``.
        activations: the pre-binarization activations, ``float32 [N, channels, rows, columns]``.
        tolerance: what counts as next to zero, as a part of the activations' root mean square.
    """
    values = np.asarray(activations, dtype=np.float64).reshape(len(activations), -1)
    bits = np.unpackbits(np.asarray(code, dtype=np.uint8), axis=1)
    far_from_zero = np.abs(values) > tolerance * np.sqrt(np.mean(values**2))
    return bool(np.array_equal(bits[far_from_zero], (values >= 0)[far_from_zero]))


def relative_deviation(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """Compute ``|found - expected| / |expected|`` over all values, by the Euclidean norm; NaN stays NaN."""
    other = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(found, dtype=np.float64) - other) / np.linalg.norm(other))


def _remedy(source: BuildSource) -> str:
    """What may help: not the schedule that is in use."""
    default = "iteration-major"
    other = [
        graph.schedule
        for graph in source.bundle.manifest.graphs
        if (graph.stage, graph.precision, graph.schedule) == (source.stage, "int8", default)
    ]
    schedule = f"the schedule {default}, " if other and source.target.schedule != default else ""
    return f"{schedule}FP32, or another version of OpenVINO"


def _weight_quantizers(model: Any) -> Iterator[Any]:  # noqa: ANN401
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            if source.get_type_name() == "Convert":  # FP16 weights, quantized in FP32
                source = source.input_value(0).get_node()
            if source.get_type_name() == "Constant":
                yield node


def _dequantizations(quantizer: Any) -> Iterator[Any]:  # noqa: ANN401
    """The Multiply nodes behind a quantizer: between them are conversions and a zero point of 0."""
    for reader in quantizer.output(0).get_target_inputs():
        node = reader.get_node()
        if node.get_type_name() == "Multiply":
            yield node
        else:
            yield from _dequantizations(node)


def _feeds(source: BuildSource) -> Arrays:
    bundle = source.bundle
    if source.stage == "encoder":
        samples = bundle.manifest.samples[:CHECKED_IMAGES]
        contract = bundle.manifest.contract
        paths = [bundle.file(sample.file) for sample in samples]
        size = contract.image_height, contract.image_width
        as_it_is = replace(contract.preprocessing, resize_to_cover=size)  # samples are of the image's size
        return {"image": load_images(paths, as_it_is, *size)}
    shape = (CHECKED_IMAGES, bundle.manifest.contract.code_bytes)
    return {"code": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
