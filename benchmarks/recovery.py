"""Measure what recovers the bits and the accuracy that INT8 costs, on several trained checkpoints.

``python -m benchmarks.recovery DIR...`` reads from each folder ``checkpoint.pt``, ``images/`` (test images)
and ``calibration/`` of the photo set, as ``python -m training.demo --seed N`` writes them, and writes
``benchmarks/results/recovery.json``. It compares with plain calibration:

- without labels and training, in the encoder: bias correction and adaptive rounding, see
  `benchmarks.rounding`; and activations that are rounded with weights that are not, which is the least that
  any choice of integers that keeps the weights' function leaves;
- with labels: quantization-aware training, and as long a fine-tuning without fake quantization, which shows
  what of the gain is due to the additional steps.

Convolutions are INT8, all else FP32, so that the effect of INT8 is measured alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from msgspec import structs

from benchmarks.recovery_results import Recovery, RecoveryVariant, recovery_table
from benchmarks.rounding import adapt_rounding, correct_biases, without_rounded_weights
from benchmarks.scaffold import publish, temporary_folder
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.metrics import flipped_bits, grouped_bootstrap_interval, top_k_hits
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.graphs.passes import StoreInt8WeightsPass
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.int8 import quantize, without_quantization
from ccr_deploy.quantization.recipe import CalibrationRecipe, read_recipe
from ccr_deploy.workflow.calibrate import calibrate_bundle
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.calibration_check import table_of
from ccr_deploy.workflow.graphs import load_model, model_runner
from ccr_deploy.workflow.images import image_set
from training.data.open import open_photos
from training.loop.options import MachineOptions
from training.loop.trainer import Setting, fit
from training.modules.qat import QatModule
from training.qat import checkpoint_of, finish, prepare
from training.recipe import read_recipe as read_training_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import ChainStage

RECIPE = Path(__file__).parent.parent / "calibration" / "demo.toml"
TRAINING_RECIPE = "photos-demo"
HELD_OUT = 16
"""Images that `calibrate` measures accuracy on: few, because this script measures it on all."""

FP32 = "FP32"
PLAIN = "INT8: plain calibration"


@dataclass(frozen=True)
class _Measured:
    """One variant of one checkpoint: flipped bits ``bool [N, bits]``, right answers ``bool [N]``."""

    flips: npt.NDArray[np.bool_]
    hits: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Images:
    """Test images ``uint8 [N, H, W, 3]`` with their labels and groups."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    groups: tuple[str, ...]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(folders: tuple[Path, ...]) -> None:
    """Measure every variant with the checkpoints in FOLDERS, and write the result beside this script."""
    torch.set_num_threads(1)  # as in the demo's training: sums are the same on any number of cores
    found: dict[str, list[_Measured]] = {}
    with TerminalProgress().task("recovering", len(folders)) as advance:
        for number, folder in enumerate(folders):
            with temporary_folder() as work:
                bundle = _calibrated(folder, work / "bundle")
                images = _test_images(bundle, folder)
                for name, measured in _variants(bundle, folder, images, work, seed=number):
                    found.setdefault(name, []).append(measured)
            advance(1)
    result = Recovery(
        schema_version=1,
        model="the demo's model",
        checkpoints=len(folders),
        images=len(images.labels),
        groups=len(set(images.groups)),
        bits=found[FP32][0].flips.size,
        fine_tuning_steps=_setting(folders[0], 0).steps,
        variants=tuple(_summary(name, found[name], found[PLAIN], images.groups) for name in found),
    )
    publish("recovery", result, recovery_table(result))


def _calibrated(folder: Path, path: Path) -> Bundle:
    exported = export_bundle(
        load_checkpoint(folder / "checkpoint.pt"),
        path,
        schedules=("iteration-major",),
        images=folder / "images",
        converters=CONVERTERS,
    )
    return _calibrate(exported, folder)


def _calibrate(bundle: Bundle, folder: Path) -> Bundle:
    return calibrate_bundle(bundle, folder / "calibration", _recipe(), held_out=folder / "images").bundle


def _recipe() -> CalibrationRecipe:
    """Return the demo's calibration recipe, with few held-out images."""
    return structs.replace(read_recipe(RECIPE), held_out_samples=HELD_OUT)


def _test_images(bundle: Bundle, folder: Path) -> _Images:
    chosen = image_set(bundle, folder / "images")
    return _Images(
        np.concatenate(list(chosen.batches)), np.array(chosen.labels, dtype=np.int64), tuple(chosen.groups)
    )


def _variants(
    bundle: Bundle, folder: Path, images: _Images, work: Path, seed: int
) -> Iterator[tuple[str, _Measured]]:
    """Yield every variant's name and measurement for one checkpoint."""
    fp32, int8 = _graphs(bundle, "encoder")
    fp32_classifier, classifier = _graphs(bundle, "classifier")
    calibration = np.concatenate(list(image_set(bundle, folder / "calibration").batches))
    reference = _codes(fp32, images)
    yield FP32, _measure(reference, fp32, fp32_classifier, images)
    rounded = adapt_rounding(int8, fp32, calibration)
    for name, encoder in {
        PLAIN: int8,
        "INT8: bias correction": correct_biases(int8, fp32, calibration),
        "INT8: adaptive rounding": rounded,
        "INT8: adaptive rounding and bias correction": correct_biases(rounded, fp32, calibration),
        "INT8: adaptive rounding towards FP32's outputs": adapt_rounding(
            int8, fp32, calibration, towards_fp32=True
        ),
        "INT8 activations with FP32 weights": without_rounded_weights(int8, fp32),
    }.items():
        yield name, _measure(reference, encoder, classifier, images)
    setting = _setting(work / "qat", seed)
    tuned = _fine_tuned(prepare(bundle, setting.phase, setting.steps), setting, bundle, folder)
    yield "INT8: quantization-aware training", _measure_bundle(tuned, images)
    setting = _setting(work / "fine-tuned", seed)
    tuned = _fine_tuned(_without_fake_quantization(bundle, setting), setting, bundle, folder)
    # With ranges of its own: those of the bundle before are not what it was trained with.
    yield "INT8: fine-tuning in FP32, plain calibration", _measure_bundle(_calibrate(tuned, folder), images)


def _without_fake_quantization(bundle: Bundle, setting: Setting) -> QatModule:
    checkpoint = checkpoint_of(bundle)
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    return QatModule(chain, checkpoint.preprocessing, phase=setting.phase, steps=setting.steps)


def _fine_tuned(module: QatModule, setting: Setting, bundle: Bundle, folder: Path) -> Bundle:
    fit(module, setting)
    result = finish(module, bundle, setting.folder, folder / "images", held_out_samples=HELD_OUT)
    return result.calibration.bundle


def _graphs(bundle: Bundle, stage: ChainStage) -> tuple[ir.Model, ir.Model]:
    """Return a stage's graph in FP32 and with INT8 convolutions, all else in FP32."""
    table, _ = table_of(bundle)
    fp32 = load_model(bundle, CalibratedGraphs(bundle).calibration_graph(stage))
    int8 = without_quantization(quantize(stage, fp32, table.stages[stage]), table.high_precision)
    StoreInt8WeightsPass()(int8)
    return fp32, int8


def _measure_bundle(bundle: Bundle, images: _Images) -> _Measured:
    fp32, encoder = _graphs(bundle, "encoder")
    return _measure(_codes(fp32, images), encoder, _graphs(bundle, "classifier")[1], images)


def _codes(encoder: ir.Model, images: _Images) -> npt.NDArray[np.uint8]:
    return _run(encoder, "image", images.pixels).astype(np.uint8)


def _measure(
    reference: npt.NDArray[np.uint8], encoder: ir.Model, classifier: ir.Model, images: _Images
) -> _Measured:
    """Measure a chain against the codes of FP32."""
    codes = _codes(encoder, images)
    logits = _run(classifier, "code", codes)
    return _Measured(flipped_bits(reference, codes), top_k_hits(logits, images.labels, 1))


def _run(model: ir.Model, name: str, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    with model_runner(model) as runner:
        (output,) = runner.infer({name: batch}).values()
    return output.astype(np.float32, copy=False)


def _setting(folder: Path, seed: int) -> Setting:
    """Return the recipe's fine-tuning on the photo set, with another seed."""
    recipe = read_training_recipe(TRAINING_RECIPE)
    data = open_photos(recipe.baseline_chain(classes=2).image_height)
    return Setting(data, recipe.phase("qat"), seed, MachineOptions(), folder)


def _summary(
    name: str, found: Sequence[_Measured], plain: Sequence[_Measured], groups: Sequence[str]
) -> RecoveryVariant:
    # Means over the checkpoints for each image, because the checkpoints have the same test images.
    gains = np.mean(
        [100.0 * (each.hits.astype(float) - other.hits) for each, other in zip(found, plain, strict=True)],
        axis=0,
    )
    return RecoveryVariant(
        name=name,
        flipped_percent=tuple(round(100 * float(each.flips.mean()), 4) for each in found),
        top1_percent=tuple(round(100 * float(each.hits.mean()), 2) for each in found),
        flip_ratio=round(
            float(
                np.mean([each.flips.mean() for each in found])
                / np.mean([each.flips.mean() for each in plain])
            ),
            3,
        ),
        top1_gain_points=round(float(gains.mean()), 3),
        top1_gain_interval_points=grouped_bootstrap_interval(gains, groups),
    )


if __name__ == "__main__":
    main()
