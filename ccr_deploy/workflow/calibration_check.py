"""Check whether the ranges of a bundle's calibration still fit the images of production."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.data.images import ImageItem
from ccr_deploy.errors import BundleError, WrongUsageError
from ccr_deploy.quantization.clipping import (
    ClippedShares,
    ClippingReport,
    TensorClipping,
    clipping_limits,
    compare_with_calibration,
    with_counts,
    worst_first,
)
from ccr_deploy.quantization.table import check_stage, parse_table
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.graphs import load_model, model_runner
from ccr_deploy.workflow.images import ReadableImages, evenly_spaced
from ccr_deploy.workflow.precision_cost import BATCH
from ccr_deploy.workflow.sources import list_sources

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.quantization.table import CalibrationTable


def check_calibration(
    bundle: Bundle, folder: Path, samples: int = 256, *, progress: Progress = SILENT
) -> tuple[ClippingReport, list[str]]:
    """Measure which share of the activations on other images the bundle's INT8 graphs clip.

    Args:
        bundle: calibrated bundle.
        folder: folder of images like those of production; sub-folders have no meaning.
        samples: number of images, evenly spaced over all.
        progress: advances by images.

    Returns:
        The result, and the error messages of skipped images.

    Raises:
        WrongUsageError: if the bundle was not calibrated.
        BundleError: if the bundle is damaged.
        CalibrationError: if the bundle's table is for other graphs, or too many images cannot be read.
        ImageError: if there are no images.
        MissingExtraError: if a package is not installed.
    """
    table, path = table_of(bundle)
    items = [ImageItem(file.path, None, str(file.name)) for file in list_sources([folder])]
    images = ReadableImages(bundle, evenly_spaced(items, samples))
    graphs = CalibratedGraphs(bundle)
    shares: dict[ChainStage, ClippedShares] = {}
    with ExitStack() as stack, progress.task("checking the calibration", len(images.items)) as advance:
        runners: dict[ChainStage, Runner] = {}
        for stage in CHAIN_STAGES:
            graph = graphs.by_hash(stage, table.graph_hashes[stage])
            model = load_model(bundle, graph)
            check_stage(table, stage, model, graph.graph_hash, path)
            limits = clipping_limits(model, table.stages[stage], table.high_precision)
            shares[stage] = ClippedShares(limits)
            runners[stage] = stack.enter_context(model_runner(with_counts(model, limits)))
        for batch in images.batches(BATCH):
            encoded = runners["encoder"].infer({"image": batch})
            shares["encoder"].add(encoded)
            codes = encoded["code"].astype(np.uint8, copy=False)
            shares["classifier"].add(runners["classifier"].infer({"code": codes}))
            advance(len(batch))
    tensors: list[TensorClipping] = []
    for stage, found in shares.items():
        tensors += compare_with_calibration(stage, found.percent(), table.stages[stage])
    report = ClippingReport(
        images=printable(str(folder)),
        image_count=len(images.read),
        calibration_image_count=table.image_count,
        tensors=worst_first(tensors),
    )
    return report, images.unreadable


def table_of(bundle: Bundle) -> tuple[CalibrationTable, Path]:
    """Return a bundle's calibration table and the table's file.

    Raises:
        WrongUsageError: if the bundle was not calibrated.
        BundleError: if the file is damaged.
    """
    calibration = bundle.manifest.calibration
    if calibration is None:
        raise WrongUsageError(
            f"{bundle.path}: has no calibration table: run ccr-deploy calibrate {bundle.path} --images DIR"
        )
    path = bundle.file(calibration.table)
    with reading(path, BundleError):
        return parse_table(read_bytes(path), path), path
