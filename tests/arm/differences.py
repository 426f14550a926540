"""Differences between the results of two chains, and the flipped bits that rounding explains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime

from ccr_deploy.backends.onnxruntime.int8 import read_rounding_graph
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits
from ccr_deploy.data.images import load_images

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tests.arm.sides import Chain, Precision


@dataclass(frozen=True)
class Differences:
    """Differences of codes, by image and bit, and of the classifier's results for the same payloads.

    `furthest_flip` is the largest pre-binarization activation of a flipped bit, as a part of all activations'
    standard deviation; 0 if no bit flipped.
    """

    images: int
    equal_payloads: int
    bits: int
    flipped_bits: int
    furthest_flip: float
    same_answers: int
    largest_logit_difference: float
    smallest_cosine: float

    @property
    def flipped_percent(self) -> float:
        return 100 * self.flipped_bits / self.bits

    @property
    def same_answers_percent(self) -> float:
        return 100 * self.same_answers / self.images

    def record(self) -> dict[str, Any]:
        """All counts as JSON content."""
        return asdict(self)


def differences(one: Chain, other: Chain, activations: npt.NDArray[np.float32]) -> Differences:
    """Count the differences between two chains.

    Args:
        one: the results of a chain.
        other: the results of another chain for the same images and payloads.
        activations: the pre-binarization activations, ``float32 [N, bits]``.
    """
    assert one.images == other.images
    flips = flipped_bits(one.codes, other.codes)
    furthest = np.abs(activations[flips]).max(initial=0) / activations.std()
    return Differences(
        images=len(flips),
        equal_payloads=int((~flips.any(axis=1)).sum()),
        bits=flips.size,
        flipped_bits=int(flips.sum()),
        furthest_flip=float(furthest),
        same_answers=sum(a == b for a, b in zip(one.answers, other.answers, strict=True)),
        largest_logit_difference=float(np.abs(one.logits - other.logits).max()),
        smallest_cosine=float(cosine_similarities(one.logits, other.logits).min()),
    )


def activations(demo: Path, images: list[str], precision: Precision) -> npt.NDArray[np.float32]:
    """Compute the pre-binarization activations without optimizations: ``float32 [N, bits]``."""
    bundle = Bundle.open(demo / "bundle")
    contract = bundle.manifest.contract
    graph = bundle.file(bundle.graph("encoder", precision, "iteration-major").file)
    content = (
        read_rounding_graph(graph, onnxruntime.__version__) if precision == "int8" else graph.read_bytes()
    )
    model = onnx.load_from_string(content)
    (sign,) = (node for node in model.graph.node if node.op_type == "GreaterOrEqual")
    model.graph.output.append(onnx.ValueInfoProto(name=sign.input[0]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    paths = [demo / "images" / f"{image}.png" for image in images]
    pixels = load_images(paths, contract.preprocessing, contract.image_height, contract.image_width)
    parts = [
        session.run([sign.input[0]], {"image": batch})[0]
        for batch in np.array_split(pixels, len(pixels) // 32)
    ]
    return np.concatenate(parts).astype(np.float32).reshape(len(pixels), -1)
