"""OpenVINO's INT8: a way around a defect of its low-precision transformations, and a check of the result.

Seen with OpenVINO 2026.4: where a quantized convolution's output is read by a Split and by an Add (the
first cell's gates, which all iterations share), its scale is applied twice and the code is noise. A Clamp
behind the convolution, wide enough never to clamp, keeps the scale where it is and costs nothing. The
quantized convolutions of several iterations joined along the batch (``layer-major``) come out wrong too,
and have no remedy but another schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ccr_deploy.errors import EngineError
from ccr_deploy.metrics import cosine_similarities, flipped_bits

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Arrays, BuildSource, Runner

LARGE = 60000.0
"""Below FP16's largest number, and above every activation that AutoCast lets into FP16."""

MAX_FLIPPED_PERCENT = 5
MIN_COSINE = 0.9
CHECKED_IMAGES = 4


def separate_shared_scales(model: Any) -> None:  # noqa: ANN401 -- the library has no types
    """Puts a Clamp behind every convolution of an OpenVINO model that several operators read."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        readers = list(node.output(0).get_target_inputs())
        if len(readers) > 1:
            clamped = opset13.clamp(node.output(0), -LARGE, LARGE)
            for reader in readers:
                reader.replace_source_output(clamped.output(0))


def check_agreement(source: BuildSource, engine: Runner, as_written: Runner) -> None:
    """Compares an INT8 engine with its graph as it is written, on the bundle's samples or random codes.

    Raises:
        EngineError: they answer so differently that rounding does not explain it.
    """
    feeds = _feeds(source)
    (found,) = engine.infer(feeds).values()
    (expected,) = as_written.infer(feeds).values()
    if source.stage == "encoder":
        flipped = 100 * float(flipped_bits(found.astype(np.uint8), expected.astype(np.uint8)).mean())
        agrees, difference = flipped <= MAX_FLIPPED_PERCENT, f"{flipped:.0f} % of the code's bits differ"
    else:
        cosine = float(cosine_similarities(found.astype(np.float32), expected.astype(np.float32)).min())
        agrees, difference = cosine >= MIN_COSINE, f"cosine of the logits {cosine:.2f}"
    if not agrees:
        schedule = f" {source.target.schedule}" if source.target.schedule else ""
        raise EngineError(
            f"{source.graph}: OpenVINO computes this INT8{schedule} {source.stage} wrongly ({difference} "
            "from the graph as written): use the schedule iteration-major, another OpenVINO, or FP32"
        )


def _feeds(source: BuildSource) -> Arrays:
    bundle = source.bundle
    if source.stage == "encoder":
        samples = bundle.manifest.samples[:CHECKED_IMAGES]
        return {"image": np.stack([np.asarray(Image.open(bundle.file(sample.file))) for sample in samples])}
    shape = (CHECKED_IMAGES, bundle.manifest.contract.code_bytes)
    return {"code": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
