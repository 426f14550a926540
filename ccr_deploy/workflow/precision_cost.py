"""Accuracy per precision and sensitivity per layer, computed from graphs on this machine's CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.bundle.accuracy import compare_precisions
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.quantization.int8 import quantize, without_quantization
from ccr_deploy.quantization.quantizers import quantizable_layers
from ccr_deploy.quantization.sensitivity import LayerSensitivity, work_shares
from ccr_deploy.workflow.graphs import load_model, model_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.accuracy import PrecisionAccuracy
    from ccr_deploy.core.precisions import EnginePrecision, Precision, PrecisionRow
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage, Schedule
    from ccr_deploy.quantization.table import StageTable
    from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
    from ccr_deploy.workflow.images import ReadableImages

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]
    CalibratedModels = dict[tuple[Precision, ChainStage, Schedule | None], ir.Model]

BATCH = 8
"""Images per run of a graph; larger batches use more memory without being faster at 224x224."""


def measure_accuracies(
    graphs: CalibratedGraphs, calibrated: CalibratedModels, held_out: ReadableImages, progress: Progress
) -> tuple[PrecisionAccuracy, ...]:
    """Measure every precision on held-out images, against FP32.

    Args:
        graphs: graphs of the bundle.
        calibrated: quantized graphs that are not in the bundle yet.
        held_out: images to measure on.
        progress: advances by images.
    """

    def graph(precision: Precision, stage: ChainStage) -> ir.Model:
        fp32 = graphs.calibration_graph(stage)
        made = calibrated.get((precision, stage, fp32.schedule))
        return made or load_model(graphs.bundle, graphs.sibling(fp32, precision))

    def runners(row: PrecisionRow) -> list[Runner]:
        models = (emulate(graph(row.emulated_graph, stage), row.name) for stage in CHAIN_STAGES)
        return [stack.enter_context(model_runner(model)) for model in models]

    codes: dict[EnginePrecision, list[Bytes]] = {precision: [] for precision in PRECISIONS}
    logits: dict[EnginePrecision, list[Floats]] = {precision: [] for precision in PRECISIONS}
    with ExitStack() as stack, progress.task("measuring accuracy", len(held_out.items)) as advance:
        chains = {row.name: runners(row) for row in PRECISIONS.values()}
        for images in held_out.batches(BATCH):
            for precision, (encoder, classifier) in chains.items():
                codes[precision].append(_encode(encoder, images))
                logits[precision].append(_classify(classifier, codes[precision][-1]))
            advance(len(images))
    return tuple(
        compare_precisions(
            precision,
            np.concatenate(codes[precision]),
            np.concatenate(logits[precision]),
            np.concatenate(codes["fp32"]),
            np.concatenate(logits["fp32"]),
            labels=[item.label for item in held_out.read],
            groups=[item.group for item in held_out.read],
        )
        for precision in PRECISIONS
    )


def measure_sensitivity(
    graphs: CalibratedGraphs,
    tables: Mapping[ChainStage, StageTable],
    images: Bytes,
    progress: Progress,
) -> list[LayerSensitivity]:
    """Measure the effect of quantizing each layer alone, against FP32.

    Args:
        graphs: graphs of the bundle.
        tables: activation ranges of each stage.
        images: calibration images, ``uint8 [N, H, W, 3]``.
        progress: advances by layers.
    """
    models = {stage: load_model(graphs.bundle, graphs.calibration_graph(stage)) for stage in CHAIN_STAGES}
    names = {stage: quantizable_layers(model) for stage, model in models.items()}
    found = []
    with (
        model_runner(models["encoder"]) as encoder,
        model_runner(models["classifier"]) as classifier,
        progress.task("measuring sensitivity", sum(map(len, names.values()))) as advance,
    ):
        fp32_codes = _encode(encoder, images)
        fp32_answers = _classify(classifier, fp32_codes).argmax(axis=1)
        for stage in CHAIN_STAGES:
            quantized = quantize(stage, models[stage], tables[stage])
            shares = work_shares(models[stage])
            for layer in names[stage]:
                others = set(names[stage]) - {layer}
                codes, flipped_percent = fp32_codes, None
                with model_runner(without_quantization(quantized, others)) as alone:
                    if stage == "encoder":
                        codes = _encode(alone, images)
                        flipped_percent = 100 * float(flipped_bits(fp32_codes, codes).mean())
                    answers = _classify(classifier if stage == "encoder" else alone, codes).argmax(axis=1)
                changed_percent = 100 * float((answers != fp32_answers).mean())
                found.append(LayerSensitivity(stage, layer, shares[layer], flipped_percent, changed_percent))
                advance(1)
    return found


def _encode(encoder: Runner, images: Bytes) -> Bytes:
    """Return the codes ``uint8 [N, bytes]`` of images ``uint8 [N, H, W, 3]``."""
    codes = [
        encoder.infer({"image": batch})["code"]
        for batch in np.split(images, range(BATCH, len(images), BATCH))
    ]
    return np.concatenate(codes).astype(np.uint8, copy=False)


def _classify(classifier: Runner, codes: Bytes) -> Floats:
    """Return the logits ``float32 [N, classes]`` of codes ``uint8 [N, bytes]``."""
    logits = [
        classifier.infer({"code": batch})["logits"]
        for batch in np.split(codes, range(BATCH, len(codes), BATCH))
    ]
    return np.concatenate(logits).astype(np.float32, copy=False)
