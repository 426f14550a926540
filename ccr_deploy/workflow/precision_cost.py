"""What precisions and layers cost, computed from a bundle's graphs on this machine's CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.accuracy import PrecisionAccuracy, compare_precisions
from ccr_deploy.precision.int8 import quantize, without_quantization
from ccr_deploy.precision.judge import judge
from ccr_deploy.precision.quantizers import quantizable_layers
from ccr_deploy.precision.sensitivity import LayerSensitivity, work_shares
from ccr_deploy.verification.answers import StageRunners, collect
from ccr_deploy.workflow.calibrated_graphs import STAGES
from ccr_deploy.workflow.graphs import graph_runner, load_model, model_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.precision.table import CalibratedStage, StageTable
    from ccr_deploy.progress import Progress
    from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
    from ccr_deploy.workflow.images import ReadablePictures

BATCH = 8
"""Pictures that go through a graph together; at 224x224 more would only take more memory."""


def measure_accuracies(
    graphs: CalibratedGraphs,
    int8: Mapping[CalibratedStage, ir.Model],
    pictures: ReadablePictures,
    progress: Progress,
) -> tuple[PrecisionAccuracy, ...]:
    """FP32, FP16, BF16 and INT8 on held-out pictures, computed from the graphs on this CPU."""
    bundle = graphs.bundle
    fp32 = {stage: graphs.collected(stage) for stage in STAGES}
    fp16 = {stage: load_model(bundle, graphs.fp16(fp32[stage])) for stage in STAGES}
    ways = {
        "fp32": StageRunners(**{stage: graph_runner(bundle, graph) for stage, graph in fp32.items()}),
        "fp16": StageRunners(**{stage: model_runner(judge(model)) for stage, model in fp16.items()}),
        "bf16": StageRunners(**{stage: model_runner(judge(model, "bf16")) for stage, model in fp16.items()}),
        "int8": StageRunners(**{stage: model_runner(judge(model)) for stage, model in int8.items()}),
    }
    answers, _ = collect(
        pictures.batches(BATCH),
        ways,
        total=len(pictures.items),
        title="measuring accuracy",
        progress=progress,
    )
    reference = answers["fp32"]
    return tuple(
        compare_precisions(
            precision,
            answers[precision].codes,
            answers[precision].chain_logits,
            reference.codes,
            reference.chain_logits,
            labels=[item.label for item in pictures.read],
            groups=[item.group for item in pictures.read],
        )
        for precision in ("fp32", "fp16", "bf16", "int8")
    )


def measure_sensitivity(
    graphs: CalibratedGraphs,
    tables: Mapping[CalibratedStage, StageTable],
    images: npt.NDArray[np.uint8],
    progress: Progress,
) -> list[LayerSensitivity]:
    """Every layer quantized alone, against FP32, on pictures of the calibration."""
    bundle = graphs.bundle
    models = {stage: load_model(bundle, graphs.collected(stage)) for stage in STAGES}
    names = {stage: quantizable_layers(model) for stage, model in models.items()}
    found = []
    with (
        progress.task("measuring sensitivity", sum(map(len, names.values()))) as advance,
        ExitStack() as stack,
    ):
        fp32 = StageRunners(
            **{stage: stack.enter_context(model_runner(model)) for stage, model in models.items()}
        )
        for stage in STAGES:
            quantized = quantize(models[stage], tables[stage])
            shares = work_shares(models[stage])
            for layer in names[stage]:
                alone = model_runner(without_quantization(quantized, set(names[stage]) - {layer}))
                way = (
                    StageRunners(alone, fp32.classifier)
                    if stage == "encoder"
                    else StageRunners(fp32.encoder, alone)
                )
                cost = _compare_chains(fp32, way, images)
                found.append(
                    LayerSensitivity(
                        stage=stage,
                        layer=layer,
                        work_share=shares[layer],
                        flipped_percent=cost.flipped_percent if stage == "encoder" else None,
                        changed_answers_percent=100 - cost.same_top1_percent,
                    )
                )
                advance(1)
    return found


def _compare_chains(
    fp32: StageRunners, other: StageRunners, images: npt.NDArray[np.uint8]
) -> PrecisionAccuracy:
    codes, logits = zip(*(_run_chain(way, images) for way in (fp32, other)), strict=True)
    nobody = [None] * len(images)
    groups = [str(number) for number in range(len(images))]
    return compare_precisions("int8", codes[1], logits[1], codes[0], logits[0], labels=nobody, groups=groups)


def _run_chain(
    way: StageRunners, images: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    codes, logits = [], []
    for start in range(0, len(images), BATCH):
        code = way.encoder.infer({"image": images[start : start + BATCH]})["code"]
        codes.append(code.astype(np.uint8, copy=False))
        logits.append(way.classifier.infer({"code": codes[-1]})["logits"].astype(np.float32, copy=False))
    return np.concatenate(codes), np.concatenate(logits)
