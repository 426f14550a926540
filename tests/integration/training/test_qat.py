"""Quantization-aware training: fake quantization computes what INT8 graphs compute, before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning
import numpy as np
import pytest
import torch
from msgspec import structs
from torch.utils.data import DataLoader

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.graphs.convolutions import quantized_convolutions
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.quantization.int8 import activation_scales, quantize, without_quantization
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.calibration_check import table_of
from ccr_deploy.workflow.graphs import load_model, model_runner
from training.data.batches import Batches
from training.data.open import open_photos
from training.data.photos import TrainingCrops, load_photos
from training.fake_quantization import fake_quantize, places_of_graphs
from training.loop.options import MachineOptions
from training.modules.qat import QatModule
from training.qat import checkpoint_of, finish, prepare, qat
from training.recipe import Phase, read_recipe
from training.steps import Training

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import ChainStage
    from tests.support.demo import CalibratedDemo

STEPS = 3
PHASE = Phase(epochs=1, batch=16, learning_rate=3e-4)


def graph(bundle: Bundle, stage: ChainStage, precision: Precision) -> ir.Model:
    graphs = CalibratedGraphs(bundle)
    return load_model(bundle, graphs.sibling(graphs.calibration_graph(stage), precision))


def with_qdq_in_fp32(bundle: Bundle, stage: ChainStage) -> ir.Model:
    """Return a stage's FP32 graph with the Q/DQ pairs of its INT8 graph."""
    table, _ = table_of(bundle)
    fp32 = graph(bundle, stage, "fp32")
    return without_quantization(quantize(stage, fp32, table.stages[stage]), table.high_precision)


def run(model: ir.Model, name: str, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.generic]:
    with model_runner(model) as runner:
        (output,) = runner.infer({name: batch}).values()
    return output


def codes_of(module: QatModule, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    with torch.inference_mode():
        bits = module.codes(torch.from_numpy(images)).numpy() > 0
    return np.packbits(bits.reshape(len(images), -1), axis=1)


def flips(codes: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> int:
    return int(flipped_bits(codes.astype(np.uint8), other.astype(np.uint8)).sum())


def fine_tuned(module: QatModule) -> QatModule:
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=module.steps, logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    crops = TrainingCrops(load_photos(), 48)
    batches = Batches(len(crops), PHASE.batch, module.steps, seed=3)
    trainer.fit(module, DataLoader(crops, batch_sampler=batches))
    return module


def test_fake_quantization_gives_the_codes_and_logits_of_the_same_graph_with_qdq_pairs(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    bundle, images = calibrated_demo.bundle, real_crops[::4]
    checkpoint = checkpoint_of(bundle)
    chain = build_model(checkpoint)
    encoder, classifier = (with_qdq_in_fp32(bundle, stage) for stage in ("encoder", "classifier"))
    fake_quantize(chain, places_of_graphs(chain, {"encoder": encoder, "classifier": classifier}))
    module = QatModule(chain, checkpoint.preprocessing, phase=PHASE, steps=STEPS)
    codes = codes_of(module, images)
    int8_flips = flips(run(graph(bundle, "encoder", "fp32"), "image", images), codes)
    assert int8_flips > 40  # otherwise the next line shows nothing
    assert flips(run(encoder, "image", images), codes) <= int8_flips / 20  # ties of roundings
    with torch.inference_mode():
        logits = module(torch.from_numpy(images)).numpy()
    fp32_logits = run(graph(bundle, "classifier", "fp32"), "code", codes)
    int8_error = np.abs(logits - fp32_logits).mean()
    assert np.abs(logits - run(classifier, "code", codes)).mean() < int8_error / 10


def test_a_prepared_module_gives_nearly_the_codes_of_the_bundles_int8_graph(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8]
) -> None:
    bundle, images = calibrated_demo.bundle, real_crops[::4]
    codes = codes_of(prepare(bundle, PHASE, STEPS), images)
    int8_codes = run(emulate(graph(bundle, "encoder", "int8"), "int8"), "image", images)
    fp32_codes = run(graph(bundle, "encoder", "fp32"), "image", images)
    # The INT8 graph computes in FP16 between its Q/DQ pairs, which flips a few bits more.
    assert flips(int8_codes, codes) < flips(int8_codes, fp32_codes) / 2


def test_quantizers_are_where_the_int8_graphs_have_qdq_pairs(calibrated_demo: CalibratedDemo) -> None:
    chain = prepare(calibrated_demo.bundle, PHASE, STEPS).model
    enabled = {
        path
        for path, module in chain.named_modules()
        if type(module).__name__ == "TensorQuantizer" and module.is_enabled
    }
    cells = {"cells.0.hidden_conv", "cells.1.input_conv", "cells.1.hidden_conv", "cells.2.input_conv"}
    convs = {f"encoder.{name}" for name in (*cells, "cells.2.hidden_conv")}
    convs |= {f"classifier.sampling.conv{number}" for number in (1, 2, 3)}
    convs |= {f"classifier.layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)}
    convs |= {"classifier.layer4.0.downsample.0"}
    quantizers = {f"{conv}.{what}_quantizer" for conv in convs for what in ("input", "weight")}
    assert enabled == quantizers | {"classifier.layer4.0.downsample.2", "classifier.layer4.1.downsample.0"}


def test_training_reaches_every_weight_and_leaves_batch_norm_statistics(
    calibrated_demo: CalibratedDemo,
) -> None:
    module = prepare(calibrated_demo.bundle, PHASE, STEPS)
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    fine_tuned(module)
    after = module.model.state_dict()
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "tracked"))}
    ranges = {name for name in before if name.endswith("_amax")}
    assert unchanged == statistics | ranges


def test_the_fine_tuned_bundle_has_the_same_scales_and_the_modules_bits(
    calibrated_demo: CalibratedDemo, real_crops: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    before = calibrated_demo.bundle
    module = fine_tuned(prepare(before, PHASE, STEPS))
    result = finish(
        module, before, tmp_path, calibrated_demo.folder / "images", metrics={"top1_percent": 50.0}
    )
    checkpoint = load_checkpoint(result.checkpoint)
    assert set(checkpoint.state_dict) == set(checkpoint_of(before).state_dict)
    assert all(
        torch.equal(tensor, module.model.state_dict()[name]) for name, tensor in checkpoint.state_dict.items()
    )
    assert (checkpoint.trained_iterations, checkpoint.metrics) == ((3,), {"top1_percent": 50.0})
    after = Bundle.open(tmp_path / "bundle")
    assert after.manifest.calibration is not None
    assert after.manifest.calibration.accuracies
    for stage in ("encoder", "classifier"):
        old, new = graph(before, stage, "int8"), graph(after, stage, "int8")
        assert activation_scales(new) == activation_scales(old)
        assert quantized_convolutions(new) == quantized_convolutions(old)
    images = real_crops[::4]
    codes = codes_of(module, images)
    int8_codes = run(emulate(graph(after, "encoder", "int8"), "int8"), "image", images)
    fp32_codes = run(graph(after, "encoder", "fp32"), "image", images)
    assert flips(int8_codes, codes) < flips(int8_codes, fp32_codes) / 2


def test_a_bundle_without_int8_graphs_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(WrongUsageError, match="has no INT8 graphs: run ccr-deploy calibrate"):
        prepare(tiny_bundle, PHASE, STEPS)


def test_results_that_would_replace_the_bundle_are_refused(calibrated_demo: CalibratedDemo) -> None:
    recipe, data = read_recipe("photos-demo"), open_photos(48)
    training = Training("qat", recipe, data, MachineOptions(), calibrated_demo.folder)
    with pytest.raises(WrongUsageError, match="would replace this bundle: give another --output"):
        qat(training, calibrated_demo.bundle, calibrated_demo.images)


def test_a_quantized_stem_is_refused(calibrated_demo: CalibratedDemo) -> None:
    bundle = calibrated_demo.bundle
    calibration = bundle.manifest.calibration
    assert calibration is not None
    manifest = structs.replace(
        bundle.manifest, calibration=structs.replace(calibration, high_precision=("binarizer",))
    )
    with pytest.raises(WrongUsageError, match="calibrate it with --keep-high-precision stem"):
        prepare(Bundle(bundle.path, manifest), PHASE, STEPS)
