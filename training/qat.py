"""Quantization-aware training of a calibrated bundle's chain: before and after the training itself.

The ranges of the activations are those of the bundle's calibration table, and stay fixed: the INT8 graphs
have exactly the scales that the chain was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs
from safetensors.torch import load_file

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.quantization.table import CalibrationTable, StageTable
from ccr_deploy.workflow.calibrate import calibrate_from_table
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.calibration_check import table_of
from training.evaluation.accuracy import evaluate
from training.evaluation.results import CHECKPOINT_FILE, EVALUATION_FILE, write_result
from training.fake_quantization import fake_quantize, quantized_places
from training.initial_weights import InitialWeights
from training.loop.options import best_device
from training.loop.saved_state import STATE
from training.modules.qat import QatModule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.core.progress import Progress
    from ccr_deploy.workflow.calibrate import Calibration
    from training.recipe import Phase
    from training.steps import Training


BUNDLE = "bundle"
"""The folder of the fine-tuned bundle, in that of the training."""


@dataclass(frozen=True)
class QatResult:
    """The fine-tuned checkpoint's file, and the calibration of the bundle that was exported from it."""

    checkpoint: Path
    calibration: Calibration


def qat(training: Training, bundle: Bundle, held_out: Path, progress: Progress = SILENT) -> Bundle | None:
    """Train the chain of a calibrated bundle with fake quantization, then export and quantize it again.

    Args:
        training: recipe, data, machine and folder.
        bundle: the calibrated bundle.
        held_out: a folder of images to measure the accuracy of each precision on.
        progress: advances by graphs and images.

    Returns:
        The bundle of the fine-tuned checkpoint; None in the processes that do not write it.

    Raises:
        WrongUsageError: if the bundle is not calibrated or has other classes than the data, the results
            would replace it, the folder is another training's, or the batch cannot be divided.
        TrainingError: if the loss is not a number, or the folder cannot be written.
        ImageError: if an image cannot be used.
        BundleError: if a bundle cannot be read or written.
    """
    setting, manifest = training.setting, bundle.manifest
    if manifest.class_names != training.data.class_names:
        raise WrongUsageError(
            f"{bundle.path}: has other classes than the data: give the data of its checkpoint's training"
        )
    own = training.folder / BUNDLE
    if own.resolve() == bundle.path.resolve():
        raise WrongUsageError(f"{own}: the results would replace this bundle: give another --output")
    module = prepare(bundle, setting.phase, setting.steps)
    training.begin(manifest.model, [InitialWeights(bundle.path.name, checkpoint_of(bundle).state_dict)])
    if (training.folder / EVALUATION_FILE).exists():
        return Bundle.open(own)
    if not training.fit(module):
        return None
    result = finish(module, bundle, training.folder, held_out, progress=progress)
    checkpoint = load_checkpoint(result.checkpoint)
    write_result(
        evaluate(checkpoint, training.data.test, device=best_device()), training.folder / EVALUATION_FILE
    )
    (training.folder / STATE).unlink(missing_ok=True)
    return result.calibration.bundle


def prepare(bundle: Bundle, phase: Phase, steps: int) -> QatModule:
    """Return the module that fine-tunes a calibrated bundle's chain with fake quantization.

    Args:
        bundle: the calibrated bundle.
        phase: the hyperparameters of the fine-tuning.
        steps: steps of the optimizer in the whole training.

    Raises:
        WrongUsageError: if the bundle is not calibrated, or its INT8 graphs quantize the stem.
        BundleError: if the bundle is damaged.
        MissingExtraError: if Model Optimizer is not installed.
    """
    checkpoint = checkpoint_of(bundle)
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    fake_quantize(chain, quantized_places(bundle, chain))
    return QatModule(chain, checkpoint.preprocessing, phase=phase, steps=steps)


def finish(
    module: QatModule,
    bundle: Bundle,
    output: Path,
    images: Path,
    *,
    held_out_samples: int = CalibrationRecipe().held_out_samples,
    metrics: Mapping[str, float] | None = None,
    progress: Progress = SILENT,
) -> QatResult:
    """Write the fine-tuned ``checkpoint.pt``, and its bundle with INT8 graphs of the same ranges.

    Args:
        module: the fine-tuned module.
        bundle: the bundle that it was prepared from.
        output: the folder to write ``checkpoint.pt`` and ``bundle`` to.
        images: the folder of held-out images, to measure accuracy on and to take the sample images from.
        held_out_samples: number of these images, evenly spaced over all.
        metrics: metrics of the fine-tuning by name, for the checkpoint.
        progress: advances by graphs and images.

    Raises:
        ImageError: if `images` has no images, or one cannot be used.
        BundleError: if a bundle cannot be read or written.
    """
    before = checkpoint_of(bundle)
    table, path = table_of(bundle)
    trained = module.model.state_dict()
    checkpoint = replace(
        before,
        state_dict={name: trained[name] for name in before.state_dict},  # without the quantizers' buffers
        trained_iterations=(before.config.iterations,),
        metrics=metrics or {},
    )
    output.mkdir(parents=True, exist_ok=True)
    save_checkpoint(checkpoint, output / CHECKPOINT_FILE)
    schedules = [graph.schedule for graph in CalibratedGraphs(bundle).fp32 if graph.schedule]
    exported = export_bundle(
        checkpoint,
        output / BUNDLE,
        schedules=schedules,
        images=images,
        converters=CONVERTERS,
        progress=progress,
    )
    calibration = calibrate_from_table(
        exported,
        _for_graphs_of(exported, table),
        path,
        CalibrationRecipe(held_out_samples=held_out_samples),
        held_out=images,
        progress=progress,
    )
    return QatResult(output / CHECKPOINT_FILE, calibration)


def checkpoint_of(bundle: Bundle) -> Checkpoint:
    """Return the checkpoint that a bundle was exported from.

    Raises:
        BundleError: if the file of the weights is damaged.
    """
    manifest = bundle.manifest
    return Checkpoint(
        config=manifest.model,
        preprocessing=manifest.contract.preprocessing,
        state_dict=load_file(bundle.file(manifest.weights)),
        trained_iterations=manifest.trained_iterations,
        class_names=manifest.class_names,
        metrics=manifest.metrics,
    )


def _for_graphs_of(bundle: Bundle, table: CalibrationTable) -> CalibrationTable:
    """Return the table with the hashes of a fine-tuned bundle's graphs, and without their clipped shares."""
    graphs = CalibratedGraphs(bundle)
    stages = {
        stage: StageTable(
            {name: structs.replace(entry, clipped_percent=None) for name, entry in ranges.items()}
        )
        for stage, ranges in ((stage, table.stages[stage].tensors) for stage in CHAIN_STAGES)
    }
    hashes = {stage: graphs.calibration_graph(stage).graph_hash for stage in CHAIN_STAGES}
    return structs.replace(table, graph_hashes=hashes, stages=stages)
