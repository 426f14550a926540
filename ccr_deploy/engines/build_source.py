"""Prepare the inputs of a build: the parts of a bundle that a backend needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from ccr_deploy.backends.base import BuildSource, Weights
from ccr_deploy.models.family import parameter_prefix

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.resolved import ResolvedTarget

_SAMPLES = 4
"""The number of inputs on which a backend compares an engine with its graph."""


def build_source(
    bundle: Bundle,
    stage: Stage,
    target: ResolvedTarget,
    graph: Path | None,
    *,
    caches: Path,
    advance: Advance,
) -> BuildSource:
    """Return the inputs and settings of the build of a stage's engine.

    Args:
        bundle: the bundle.
        stage: the stage.
        target: the target, resolved for the stage.
        graph: the file of the stage's graph, whose hash was checked; None for the PyTorch reference.
        caches: the folder for caches that make later builds faster.
        advance: called with the number of units, of 100 in all, that were completed since the last call.
    """

    def graph_in(precision: Precision) -> Path:
        return bundle.file(bundle.graph(stage, precision, target.schedule).file)

    return BuildSource(
        stage=stage,
        precision=target.precision,
        schedule=target.schedule,
        batch=target.batch,
        graph=graph,
        input_shapes=bundle.manifest.input_shapes(stage),
        samples=lambda: _samples(bundle, stage),
        graph_in=graph_in,
        weights=lambda: _weights(bundle, stage),
        other_schedules=tuple(
            found.schedule
            for found in bundle.manifest.graphs
            if (found.stage, found.precision) == (stage, target.graph_precision)
            and found.schedule not in (None, target.schedule)
        ),
        caches=caches,
        advance=advance,
    )


def _samples(bundle: Bundle, stage: Stage) -> Arrays:
    """Return the bundle's sample images for an encoder, and random codes for a classifier."""
    contract = bundle.manifest.contract
    if stage == "classifier":
        shape = (_SAMPLES, contract.code_bytes)
        return {"code": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    from ccr_deploy.data.images import load_images  # imports Pillow, which only builds need

    paths = [bundle.file(sample.file) for sample in bundle.manifest.samples[:_SAMPLES]]
    size = contract.image_height, contract.image_width
    # The samples of a bundle are already preprocessed: resizing to their own size changes nothing.
    unchanged = replace(contract.preprocessing, resize_to_cover=size)
    return {"image": load_images(paths, unchanged, *size)}


def _weights(bundle: Bundle, stage: Stage) -> Weights:
    network = bundle.manifest.network(stage)
    preprocessing = bundle.manifest.contract.preprocessing
    return Weights(bundle.file(network.weights), parameter_prefix(stage), network.model, preprocessing)
