"""Comparison of the intermediate tensors of graphs and engines: ``verify --layers``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy import CREATED_BY
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.printable import printable
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.models.family import BINARIZER_WEIGHT, last_hidden_states
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.verification.layers import (
    SCHEMA_VERSION,
    TOLERANCES,
    FirstNonFinite,
    IterationFlips,
    LayerComparison,
    LayerReport,
    OutputCheck,
    TensorDifferences,
    channel_errors,
    first_non_finite,
    iteration_bits,
)
from ccr_deploy.workflow.engines import compared_factory
from ccr_deploy.workflow.graphs import graph_runner
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.observed import stage_ways

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Arrays, Outputs
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.image_set import ImageSet
    from ccr_deploy.verification.results import Level
    from ccr_deploy.workflow.observed import ObservedWay, StageWays

DEFAULT_SAMPLES = 4
"""Images to compare layers on: a wrong layer is wrong on every image."""
OUTPUTS: Mapping[ChainStage, str] = {"encoder": "code", "classifier": "logits"}


def compare_layers(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    progress: Progress = SILENT,
) -> LayerReport:
    """Compare the tensors of FP32 graphs, precision graphs and engines, each with the one before.

    The engines are built again with all activations as outputs, which changes what the backend fuses. So
    the outputs of the stage are also compared without them.

    Args:
        bundle: bundle that the engines are built from.
        target: name or TOML file of the target.
        store: engine store.
        precision: precision of encoder and classifier; None for the engines that were built last.
        images: folder of images; None for the bundle's sample images.
        samples: number of images, evenly spaced over all; None for `DEFAULT_SAMPLES`.
        progress: advances by images.

    Raises:
        WrongUsageError: if the target is the PyTorch reference.
        EngineError: if an engine cannot be built or run on this machine.
        BundleError: if the bundle is damaged.
        ImageError: if the folder has no images, or an image cannot be used.
        MissingExtraError: if a package is not installed.
    """
    factory = compared_factory(bundle, target, store, precision)
    chosen = image_set(bundle, images, samples or DEFAULT_SAMPLES)
    feeds = stage_feeds(bundle, factory, "encoder", chosen)
    comparisons: list[LayerComparison] = []
    non_finite: list[FirstNonFinite] = []
    with progress.task("comparing layers", len(CHAIN_STAGES) * len(chosen.names)) as advance:
        for stage in CHAIN_STAGES:
            if stage == "classifier":
                feeds = fp32_codes(bundle, factory, feeds)
            with stage_ways(bundle, factory, stage) as ways:
                comparing = _StageComparison(bundle, ways)
                for (
                    image
                ) in feeds:  # one by one: the tensors of one image take far more memory than the image
                    comparing.add(image)
                    advance(1)
            comparisons += comparing.comparisons()
            non_finite += comparing.non_finite.values()
    manifest = bundle.manifest
    return LayerReport(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        bundle=printable(str(bundle.path)),
        contract_id=manifest.contract_id,
        weights_sha256=manifest.weights.sha256,
        target=target,
        images=chosen.description,
        image_count=len(chosen.names),
        comparisons=tuple(comparisons),
        non_finite=tuple(non_finite),
    )


def stage_feeds(
    bundle: Bundle, factory: EngineFactory, stage: ChainStage, images: ImageSet
) -> Sequence[Arrays]:
    """Return the inputs of a stage, one image each. A classifier reads the codes of the FP32 graph.

    Args:
        bundle: the bundle.
        factory: the engine factory of the target.
        stage: the stage.
        images: the images, which are read.
    """
    feeds = [{"image": image[None]} for batch in images.batches for image in batch]
    return feeds if stage == "encoder" else fp32_codes(bundle, factory, feeds)


def fp32_codes(bundle: Bundle, factory: EngineFactory, feeds: Sequence[Arrays]) -> list[Outputs]:
    """Return the codes that the FP32 graph computes from the inputs of an encoder.

    Args:
        bundle: the bundle.
        factory: the engine factory of the target, for the schedule.
        feeds: inputs of an encoder.
    """
    record = bundle.graph("encoder", "fp32", factory.graph_record("encoder").schedule)
    with graph_runner(bundle, record) as runner:
        return [runner.infer(images) for images in feeds]


class _StageComparison:
    """Compares each way to run a stage with the one before, image by image."""

    def __init__(self, bundle: Bundle, ways: StageWays) -> None:
        self.non_finite: dict[Level, FirstNonFinite] = {}
        self._ways = ways
        self._limits = GateLimits.of([ways.precision], bundle)
        fp32 = ways.ways[0].graph.model
        self._binarizer = fp32.graph.initializers[BINARIZER_WEIGHT] if ways.stage == "encoder" else None
        self._pairs = [_Pair(before, way) for before, way in pairwise(ways.ways)]

    def add(self, feeds: Arrays) -> None:
        """Run one image in every way, and compare."""
        name = OUTPUTS[self._ways.stage]
        found: dict[Level, Outputs] = {}
        observed: dict[Level, npt.NDArray[np.generic]] = {}
        plain: dict[Level, npt.NDArray[np.generic]] = {}
        for way in self._ways.ways:
            outputs = way.observed.infer(feeds)
            found[way.level] = way.graph.by_name(outputs)
            observed[way.level], plain[way.level] = outputs[name], way.plain.infer(feeds)[name]
            first = first_non_finite(found[way.level])
            if first and way.level not in self.non_finite:
                operator = way.graph.activations[first].operator
                self.non_finite[way.level] = FirstNonFinite(self._ways.stage, way.level, first, operator)
        weight = None
        if self._binarizer is not None and self._binarizer.const_value is not None:
            weight = self._binarizer.const_value.numpy()
        for pair in self._pairs:
            level, before = pair.way.level, pair.before.level
            one, two = found[level], found[before]
            pair.differences.add(one, two)
            pair.outputs.append((observed[level], observed[before], plain[level], plain[before]))
            if weight is not None:
                pair.add_iterations(one, two, weight)

    def comparisons(self) -> Iterator[LayerComparison]:
        """Yield the comparison of each way with the one before."""
        name = OUTPUTS[self._ways.stage]
        tolerance = TOLERANCES[self._ways.precision]
        flips = self._limits.by_name["max-flipped-percent"] / 100
        for pair in self._pairs:
            observed, before, plain, plain_before = map(np.concatenate, zip(*pair.outputs, strict=True))
            yield LayerComparison(
                stage=self._ways.stage,
                level=pair.way.level,
                against=pair.before.level,
                precision=self._ways.precision,
                tolerance=tolerance,
                tensors=pair.differences.tensors(),
                not_comparable=pair.differences.not_comparable(pair.before.graph.tensors),
                iterations=tuple(
                    IterationFlips(iteration, flipped, bits)
                    for iteration, (flipped, bits) in sorted(pair.flips.items())
                ),
                output=OutputCheck(
                    name=name,
                    error=output_error(observed, before),
                    error_without_extra_outputs=output_error(plain, plain_before),
                    tolerance=flips if name == "code" else tolerance,
                ),
            )


class _Pair:
    """Two ways that are compared, and what was found so far."""

    def __init__(self, before: ObservedWay, way: ObservedWay) -> None:
        self.before, self.way = before, way
        partners = {name: before.graph.partner(name) for name in way.graph.tensors}
        self.differences = TensorDifferences(way.graph.activations, partners)
        self.outputs: list[tuple[npt.NDArray[np.generic], ...]] = []
        self.flips: dict[int, tuple[int, int]] = {}

    def add_iterations(self, found: Arrays, expected: Arrays, weight: npt.NDArray[np.generic]) -> None:
        """Count the bits that differ after each iteration.

        Args:
            found: tensors of the way, by logical name.
            expected: tensors of the way before.
            weight: weight of the binarizer's convolution, ``float32 [K, C, 1, 1]``.
        """
        for iteration, name in last_hidden_states(found).items():
            if name in expected:
                differ = iteration_bits(found[name], weight) != iteration_bits(expected[name], weight)
                flipped, bits = self.flips.get(iteration, (0, 0))
                self.flips[iteration] = flipped + int(differ.sum()), bits + differ.size


def output_error(found: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """Return the error of a stage's output: the share of flipped bits of codes, else the worst channel's.

    Args:
        found: codes ``uint8 [N, bytes]`` or logits ``float [N, classes]``.
        expected: the output that it is compared with.
    """
    if expected.dtype == np.uint8:
        return float(flipped_bits(found.astype(np.uint8), expected.astype(np.uint8)).mean())
    return float(channel_errors(found, expected).max())
