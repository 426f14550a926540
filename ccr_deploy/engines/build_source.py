"""What a backend is given to build from: the parts of a bundle that it needs."""

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


def build_source(
    bundle: Bundle,
    stage: Stage,
    target: ResolvedTarget,
    graph: Path | None,
    *,
    caches: Path,
    advance: Advance,
) -> BuildSource:
    """Return what a stage's engine is built from.

    Args:
        bundle: the bundle.
        stage: the stage.
        target: what the engine is built for.
        graph: the file of the stage's graph, which was checked; None for the reference.
        caches: where a backend may keep what makes later builds faster.
        advance: told how many more of 100 units are done.
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
    """The bundle's sample images for an encoder, random codes for a classifier."""
    contract = bundle.manifest.contract
    if stage == "classifier":
        shape = (_SAMPLES, contract.code_bytes)
        return {"code": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    from ccr_deploy.data.images import load_images  # with Pillow, which running an engine does not need

    paths = [bundle.file(sample.file) for sample in bundle.manifest.samples[:_SAMPLES]]
    size = contract.image_height, contract.image_width
    as_it_is = replace(contract.preprocessing, resize_to_cover=size)  # samples are of the image's size
    return {"image": load_images(paths, as_it_is, *size)}


def _weights(bundle: Bundle, stage: Stage) -> Weights:
    network = bundle.manifest.network(stage)
    preprocessing = bundle.manifest.contract.preprocessing
    return Weights(bundle.file(network.weights), parameter_prefix(stage), network.model, preprocessing)
