"""Quantization-aware training of a calibrated bundle's chain: before and after the training itself.

The ranges of the activations are those of the bundle's calibration table, and stay fixed: the INT8 graphs
have exactly the scales that the chain was trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs
from safetensors.torch import load_file

from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import Checkpoint, build_model, save_checkpoint
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.quantization.table import CalibrationTable, StageTable
from ccr_deploy.workflow.calibrate import calibrate_from_table
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.calibration_check import table_of
from training.fake_quantization import fake_quantize, quantized_places
from training.modules.qat import QatModule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.workflow.calibrate import Calibration
    from training.recipe import Phase


BUNDLE = "bundle"
"""The folder, in the folder of the results, of the fine-tuned bundle."""


@dataclass(frozen=True)
class QatResult:
    """The fine-tuned checkpoint's file, and the calibration of the bundle that was exported from it."""

    checkpoint: Path
    calibration: Calibration


def check_output(bundle: Bundle, output: Path) -> None:
    """Check that the results do not replace the bundle; called before the training.

    Raises:
        WrongUsageError: if they would.
    """
    if (output / BUNDLE).resolve() == bundle.path.resolve():
        raise WrongUsageError(
            f"{output}: the results would replace the bundle {bundle.path}: choose another folder"
        )


def prepare(bundle: Bundle, phase: Phase) -> QatModule:
    """Return the module that fine-tunes a calibrated bundle's chain with fake quantization.

    Args:
        bundle: the calibrated bundle.
        phase: the settings of the fine-tuning.

    Raises:
        WrongUsageError: if the bundle is not calibrated, or its INT8 graphs quantize the stem.
        BundleError: if the bundle is damaged.
        MissingExtraError: if Model Optimizer is not installed.
    """
    checkpoint = checkpoint_of(bundle)
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    fake_quantize(chain, quantized_places(bundle, chain))
    return QatModule(chain, checkpoint.preprocessing, phase)


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
        WrongUsageError: if the results would replace the bundle.
        ImageError: if `images` has no images, or one cannot be used.
        BundleError: if a bundle cannot be read or written.
    """
    check_output(bundle, output)
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
    save_checkpoint(checkpoint, output / "checkpoint.pt")
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
    return QatResult(output / "checkpoint.pt", calibration)


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
