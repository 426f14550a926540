"""Measurement of a bundle's flip tolerance, with PyTorch or with the FP32 graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ccr_deploy.backends.onnxruntime.activations import expose_activations
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeBackend
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.tolerance import classes_after_flips, flip_tolerance
from ccr_deploy.bundle.writer import writing_bundle
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.verification.answers import logits_of
from ccr_deploy.verification.reference import as_margins
from ccr_deploy.workflow.graphs import graph_runner
from ccr_deploy.workflow.images import ReadableImages, image_set
from ccr_deploy.workflow.precision_cost import BATCH
from ccr_deploy.workflow.reference import pytorch_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.tolerance import FlipTolerance, Ints
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.data.images import ImageItem
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]


def add_flip_tolerance(
    bundle: Bundle,
    store: EngineStore,
    images: Path,
    *,
    samples: int | None = None,
    progress: Progress = SILENT,
) -> FlipTolerance:
    """Measure the flip tolerance of a bundle's checkpoint in PyTorch, and write it into the bundle.

    Args:
        bundle: bundle to measure and to add to.
        store: engine store, which holds the PyTorch reference's networks.
        images: folder of images that the checkpoint was not trained on; sub-folders are classes.
        samples: number of images, evenly spaced over all; None for all.
        progress: advances by images.

    Raises:
        BundleError: if the bundle is damaged, cannot be written, or another command writes to it.
        CalibrationError: if pre-binarization activations are NaN or infinite.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if PyTorch is not installed.
    """
    with writing_bundle(bundle.path) as writer:
        # Read again, since another command may have changed the bundle before it was locked.
        current = Bundle.open(bundle.path)
        # A bundle that cannot be written is reported now, not after the measurement.
        writer.commit(current.manifest)
        chosen = image_set(current, images, samples)
        encoder, classifier = (pytorch_network(current, store, stage) for stage in CHAIN_STAGES)
        with encoder, classifier:
            classes = _classes(
                chosen.batches, encoder.pre_binarization, classifier, len(chosen.names), progress
            )
        tolerance = flip_tolerance(
            classes,
            8 * current.manifest.contract.code_bytes,
            labels=chosen.labels,
            groups=chosen.groups,
            images=chosen.description,
        )
        writer.commit(replace(current.manifest, tolerance=tolerance))
    return tolerance


def flip_tolerance_of_graphs(
    graphs: CalibratedGraphs, items: list[ImageItem], images: str, progress: Progress
) -> FlipTolerance:
    """Measure the flip tolerance with the FP32 graphs.

    Args:
        graphs: graphs of the bundle.
        items: image files that can be read, with their labels and groups.
        images: a description of the images.
        progress: advances by images.

    Raises:
        CalibrationError: if pre-binarization activations are NaN or infinite.
    """
    bundle = graphs.bundle
    graph = bundle.file(graphs.calibration_graph("encoder").file).read_bytes()
    readable = ReadableImages(bundle, items)
    with (
        OnnxRuntimeBackend().load_graph(expose_activations(graph)) as encoder,
        graph_runner(bundle, graphs.calibration_graph("classifier")) as classifier,
    ):

        def pre_binarization(batch: Bytes) -> Floats:
            _, activations = encoder.infer({"image": batch}).values()
            return activations.astype(np.float32, copy=False)

        classes = _classes(readable.batches(BATCH), pre_binarization, classifier, len(items), progress)
    return flip_tolerance(
        classes,
        8 * bundle.manifest.contract.code_bytes,
        labels=[item.label for item in readable.read],
        groups=[item.group for item in readable.read],
        images=images,
    )


def _classes(
    batches: Iterable[Bytes],
    pre_binarization: Callable[[Bytes], Floats],
    classifier: Runner,
    total: int,
    progress: Progress,
) -> Ints:
    """Return the classes of all images after flips, `bundle.tolerance.classes_after_flips`."""
    parts = []
    with progress.task("measuring flip tolerance", total) as advance:
        for images in batches:
            activations = pre_binarization(images).reshape(len(images), -1)
            codes, margins = pack_code(activations), as_margins(activations)
            parts.append(
                classes_after_flips(codes, margins, lambda changed: logits_of(classifier, "code", changed))
            )
            advance(len(images))
    return np.concatenate(parts)
