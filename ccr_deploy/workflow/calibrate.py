"""Calibration: activation ranges from images, quantized graphs from ranges, accuracy per precision."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ccr_deploy import CREATED_BY
from ccr_deploy.bundle.graph_files import add_graph
from ccr_deploy.bundle.manifest import MANIFEST, CalibrationRecord
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.writer import writing_bundle
from ccr_deploy.core.precisions import CALIBRATED
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import BundleError, CalibrationError
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS
from ccr_deploy.quantization import model_optimizer
from ccr_deploy.quantization.clipping import clipping_limits
from ccr_deploy.quantization.converters import CALIBRATED_CONVERTERS
from ccr_deploy.quantization.ranges import RangeCollector
from ccr_deploy.quantization.sensitivity import LayerSensitivity, proposal, ranked
from ccr_deploy.quantization.table import (
    SCHEMA_VERSION,
    CalibrationTable,
    StageTable,
    TensorRange,
    check_stage,
    parse_table,
)
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.flip_tolerance import flip_tolerance_of_graphs
from ccr_deploy.workflow.graphs import graph_runner, load_model
from ccr_deploy.workflow.images import ReadableImages, evenly_spaced, list_folder
from ccr_deploy.workflow.precision_cost import BATCH, measure_accuracies, measure_sensitivity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.bundle.accuracy import PrecisionAccuracy
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.data.images import ImageItem
    from ccr_deploy.quantization.recipe import CalibrationRecipe
    from ccr_deploy.workflow.precision_cost import CalibratedModels

SENSITIVITY_IMAGES = 128
"""Maximum number of calibration images that sensitivity is measured on: it runs them once per layer."""


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration: the bundle with quantized graphs, and the calibration table.

    `unreadable` are error messages of skipped images. `sensitivity` is empty unless it was requested.
    """

    bundle: Bundle
    table: CalibrationTable
    unreadable: tuple[str, ...]
    sensitivity: tuple[LayerSensitivity, ...]

    @property
    def proposal(self) -> tuple[str, ...]:
        """The layers to leave in high precision according to `sensitivity`."""
        return proposal(self.sensitivity)


def calibrate_bundle(
    bundle: Bundle,
    images: Path,
    recipe: CalibrationRecipe,
    *,
    held_out: Path | None = None,
    with_sensitivity: bool = False,
    progress: Progress = SILENT,
) -> Calibration:
    """Calibrate a bundle on images; add the table, quantized graphs and accuracies to the bundle.

    Args:
        bundle: bundle to add to.
        images: folder of calibration images.
        recipe: number of images, method, and layers to leave in high precision.
        held_out: folder of images to measure accuracy on; None for those images of `images` whose groups
            (sub-folders of a class) were not used for calibration.
        with_sensitivity: whether to measure the effect of quantizing each layer alone.
        progress: advances by images, graphs and layers.

    Raises:
        CalibrationError: if there are too few images, too many cannot be read, or a tensor has no range.
        WrongUsageError: if the bundle has no FP16 graphs, or a layer of the recipe does not exist.
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if a graph cannot be quantized.
        ImageError: if a folder has no images.
        BundleError: if the bundle is damaged, or cannot be written.
    """
    model_optimizer.check_installed()
    graphs = CalibratedGraphs(bundle)
    kept = HIGH_PRECISION_LAYERS if recipe.keep_high_precision is None else recipe.keep_high_precision
    if kept != "auto":
        kept = graphs.checked_layers(kept)  # fail before the work, not after it
    chosen, rest = _divide(list_folder(bundle, images), recipe.samples, images)
    calibrated_on = ReadableImages(bundle, chosen)
    stages, digest, seen = _find_ranges(graphs, calibrated_on, recipe, progress)
    sensitivity: list[LayerSensitivity] = []
    if with_sensitivity or kept == "auto":
        sensitivity = measure_sensitivity(graphs, stages, seen, progress)
    table = CalibrationTable(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        graph_hashes={stage: graphs.calibration_graph(stage).graph_hash for stage in CHAIN_STAGES},
        image_count=len(calibrated_on.read),
        images_sha256=digest,
        preprocessing=bundle.manifest.contract.preprocessing,
        versions=_versions(),
        high_precision=proposal(sensitivity) if kept == "auto" else kept,
        stages=stages,
    )
    judged = list_folder(bundle, held_out) if held_out else rest
    description = str(held_out) if held_out else f"{images}, groups not used for calibration"
    held_out_images = ReadableImages(bundle, evenly_spaced(judged, recipe.held_out_samples))
    result = _add_calibrated(graphs, table, held_out_images, description, progress)
    unreadable = (*calibrated_on.unreadable, *held_out_images.unreadable)
    return Calibration(result, table, unreadable, tuple(ranked(sensitivity)))


def calibrate_from_table(
    bundle: Bundle,
    table: CalibrationTable,
    where: Path,
    recipe: CalibrationRecipe,
    *,
    held_out: Path | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """Add quantized graphs to a bundle from an existing calibration table.

    Args:
        bundle: bundle to add to.
        table: calibration table of the same model.
        where: file that the table was read from, for messages.
        recipe: layers to leave in high precision (None: those of the table), and number of held-out images.
        held_out: folder of images to measure accuracy on; None to measure none.
        progress: advances by images and graphs.

    Raises:
        CalibrationError: if the table belongs to another model, or its tensors differ from the graph's.
        WrongUsageError: if the bundle has no FP16 graphs, or a layer of the recipe does not exist.
        MissingExtraError: if Model Optimizer is not installed.
        PrecisionError: if a graph cannot be quantized.
        ImageError: if `held_out` has no images.
        BundleError: if the bundle is damaged, or cannot be written.
    """
    model_optimizer.check_installed()
    graphs = CalibratedGraphs(bundle)
    for stage in CHAIN_STAGES:
        # The graph that the ranges were collected on, if the bundle still has it in any schedule.
        graph = graphs.by_hash(stage, table.graph_hashes[stage])
        check_stage(table, stage, load_model(bundle, graph), graph.graph_hash, where)
    if table.preprocessing != bundle.manifest.contract.preprocessing:
        raise CalibrationError(
            f"{where}: field preprocessing: differs from the bundle's preprocessing: calibrate the bundle "
            "on images instead"
        )
    kept = recipe.keep_high_precision
    if kept is None or kept == "auto":  # decided when the table was made
        kept = table.high_precision
    table = replace(table, high_precision=graphs.checked_layers(kept))
    items = list_folder(bundle, held_out) if held_out else []
    images = ReadableImages(bundle, evenly_spaced(items, recipe.held_out_samples))
    result = _add_calibrated(graphs, table, images, str(held_out or ""), progress)
    return Calibration(result, table, tuple(images.unreadable), ())


def _divide(items: list[ImageItem], samples: int, folder: Path) -> tuple[list[ImageItem], list[ImageItem]]:
    """Split images into those to calibrate on and those of other groups, to measure accuracy on."""
    if len(items) < samples:
        raise CalibrationError(
            f"{folder}: has {len(items)} images, {samples} are needed: "
            f"add images, or use --samples {len(items)}"
        )
    by_group: dict[str, list[ImageItem]] = {}
    for item in items:
        by_group.setdefault(item.group, []).append(item)
    groups = sorted(by_group)
    drawn: list[ImageItem] = []
    for index in np.random.default_rng(0).permutation(len(groups)):
        if len(drawn) >= samples:
            break
        drawn.extend(by_group[groups[index]])
    taken = {item.group for item in drawn}
    return evenly_spaced(drawn, samples), [item for item in items if item.group not in taken]


def _find_ranges(
    graphs: CalibratedGraphs, images: ReadableImages, recipe: CalibrationRecipe, progress: Progress
) -> tuple[dict[ChainStage, StageTable], str, npt.NDArray[np.uint8]]:
    """Return every stage's ranges, the digest of the images, and evenly spaced images for sensitivity."""
    digest = hashlib.sha256()
    seen: list[npt.NDArray[np.uint8]] = []
    every = -(-len(images.items) // SENSITIVITY_IMAGES)
    records = {stage: graphs.calibration_graph(stage) for stage in CHAIN_STAGES}
    models = {stage: load_model(graphs.bundle, record) for stage, record in records.items()}
    with ExitStack() as stack, progress.task("calibrating", len(images.items)) as advance:
        collectors = {
            stage: stack.enter_context(RangeCollector(model, recipe.method, recipe.percentile))
            for stage, model in models.items()
        }
        encoder = stack.enter_context(graph_runner(graphs.bundle, records["encoder"]))
        for batch in images.batches(BATCH):
            collectors["encoder"].add(batch)
            collectors["classifier"].add(encoder.infer({"image": batch})["code"].astype(np.uint8, copy=False))
            digest.update(batch.tobytes())
            first = len(images.read) - len(batch)
            seen.append(batch[-first % every :: every])
            advance(len(batch))
        stages = {stage: _stage_table(collectors[stage], models[stage], recipe) for stage in CHAIN_STAGES}
    return stages, digest.hexdigest(), np.concatenate(seen)


def _stage_table(collector: RangeCollector, model: ir.Model, recipe: CalibrationRecipe) -> StageTable:
    """Return a stage's ranges, each with the share of the calibration images' values that it clips."""
    table = StageTable(
        tensors={
            name: TensorRange(low=found.low, high=found.high, method=recipe.method_name)
            for name, found in collector.ranges().items()
        }
    )
    clipped = collector.clipped_percent(clipping_limits(model, table))
    tensors = {name: replace(entry, clipped_percent=clipped[name]) for name, entry in table.tensors.items()}
    return StageTable(tensors=tensors)


def _add_calibrated(
    graphs: CalibratedGraphs,
    table: CalibrationTable,
    held_out: ReadableImages,
    description: str,
    progress: Progress,
) -> Bundle:
    """Quantize every FP32 graph, measure accuracy, and replace these parts of the bundle."""
    bundle = graphs.bundle
    models: CalibratedModels = {}
    with progress.task("quantizing", len(CALIBRATED) * len(graphs.fp32)) as advance:
        for precision in CALIBRATED:
            for graph in graphs.fp32:
                assert graph.stage != "baseline"
                models[precision, graph.stage, graph.schedule] = CALIBRATED_CONVERTERS[precision](
                    graph.stage,
                    load_model(bundle, graph),
                    load_model(bundle, graphs.sibling(graph, "fp16")),
                    table.stages[graph.stage],
                    table.high_precision,
                )
                advance(1)
    accuracies: tuple[PrecisionAccuracy, ...] = ()
    tolerance = bundle.manifest.tolerance
    if held_out.items:
        accuracies = measure_accuracies(graphs, models, held_out, progress)
        measured = flip_tolerance_of_graphs(graphs, held_out.read, printable(description), progress)
        # One that no limit can be derived from does not replace one that has limits.
        if tolerance is None or tolerance.too_few_labels or not measured.too_few_labels:
            tolerance = measured
    with writing_bundle(bundle.path) as writer:
        if (bundle.path / MANIFEST).read_bytes() != graphs.manifest_file:
            raise BundleError(
                f"{bundle.path}: another command changed the bundle during calibration: calibrate again"
            )
        records = tuple(
            add_graph(writer, model, stage, precision, schedule)
            for (precision, stage, schedule), model in models.items()
        )
        if not accuracies and (known := _still_valid(bundle, records)):
            description, accuracies = known.images, known.accuracies
        text = table.to_json()
        if parse_table(text.encode(), bundle.path) != table:
            raise BundleError(f"{bundle.path}: the calibration table changes when it is written and read")
        calibration = CalibrationRecord(
            table=writer.add("calibration", ".json", lambda path: path.write_text(text, encoding="utf-8")),
            high_precision=table.high_precision,
            images=printable(description),
            accuracies=accuracies,
        )
        others = [graph for graph in bundle.manifest.graphs if graph.precision not in CALIBRATED]
        manifest = replace(
            bundle.manifest, graphs=(*others, *records), calibration=calibration, tolerance=tolerance
        )
        writer.commit(manifest)
    return Bundle(bundle.path, manifest)


def _still_valid(bundle: Bundle, calibrated: Sequence[GraphRecord]) -> CalibrationRecord | None:
    """Return the bundle's record of accuracy if it was measured with the same graphs as the new ones."""
    old = {graph.graph_hash for graph in bundle.manifest.graphs if graph.precision in CALIBRATED}
    return bundle.manifest.calibration if old == {graph.graph_hash for graph in calibrated} else None


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import onnxruntime

    return {"nvidia-modelopt": version("nvidia-modelopt"), "onnxruntime": str(onnxruntime.__version__)}
