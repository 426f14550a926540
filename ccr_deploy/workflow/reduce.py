"""Search for the smallest part of a graph that still fails: ``verify --reduce``.

Polygraphy's ``debug reduce`` is not used: it belongs to the extras of TensorRT, compares TensorRT with ONNX
Runtime only, starts a process for each step, and feeds sub-graphs with random inputs. Here the tensors of
real images are known, and a step is one run of two small graphs.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

from ccr_deploy.backends.base import Standalone
from ccr_deploy.backends.onnxruntime.standalone import NODE_BY_NODE
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.activations import DEQUANTIZED, cut, subgraph
from ccr_deploy.graphs.random_weights import random_inputs, with_random_weights
from ccr_deploy.verification.layers import ReducedGraph, channel_errors
from ccr_deploy.workflow.engines import compared_factory
from ccr_deploy.workflow.graphs import model_runner
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.layers import DEFAULT_SAMPLES, stage_feeds
from ccr_deploy.workflow.observed import stage_ways
from ccr_deploy.workflow.reproduction import Reproduction, write_reproduction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

    from ccr_deploy.backends.runner import Arrays, Outputs
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.verification.layers import LayerComparison, LayerReport
    from ccr_deploy.workflow.observed import StageWays

TRIED_TENSORS = 40
"""A convolution that is wrong because of two of its readers fails only with both, some 20 tensors later."""
TRIED_SEEDS = 5


def reduce_failure(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    report: LayerReport,
    folder: Path,
    *,
    precision: EnginePrecision | None = None,
    images: Path | None = None,
    samples: int | None = None,
    random_weights: bool = False,
) -> ReducedGraph | None:
    """Write the smallest failing part of the first stage that a comparison of layers found over tolerance.

    Args:
        bundle: bundle of the comparison.
        target: its target.
        store: its engine store.
        report: its result.
        folder: folder to write.
        precision: its precision.
        images: its images.
        samples: its number of images.
        random_weights: replace weights and inputs by random ones.

    Returns:
        What was written; None if no tensor and no output is over tolerance.

    Raises:
        WrongUsageError: if the backend has no reproduction, or the folder contains other files.
        EngineError: if no smaller graph fails, or it does not fail with random weights.
        CcrDeployError: if the folder cannot be written.
    """
    failed = next((comparison for comparison in report.comparisons if not comparison.passed), None)
    if failed is None:
        return None
    factory = compared_factory(bundle, target, store, precision)
    chosen = image_set(bundle, images, samples or DEFAULT_SAMPLES)
    feeds = stage_feeds(bundle, factory, failed.stage, chosen)
    with stage_ways(bundle, factory, failed.stage) as ways:
        search = _Search(ways, failed, feeds)
        found = search.smallest()
        if random_weights:
            found = search.with_random_weights(found)
        reproduction = search.reproduction(found, is_random=random_weights)
        write_reproduction(folder, reproduction)
    return ReducedGraph(
        folder=str(folder),
        stage=failed.stage,
        level=failed.level,
        against=failed.against,
        tensor=reproduction.tensor,
        nodes=len(reproduction.reduced.graph),
        error=reproduction.error,
        tolerance=failed.tolerance,
        has_random_weights=random_weights,
    )


@dataclass(frozen=True)
class _Part:
    """A part of two graphs between the same tensors, its inputs by logical name, and the outputs of both."""

    tensor: str
    reference: ir.Model
    reduced: ir.Model
    inputs: Arrays
    expected: npt.NDArray[np.generic]
    found: npt.NDArray[np.generic]

    @property
    def error(self) -> float:
        return float(channel_errors(self.found, self.expected).max())


class _Search:
    """The search for the smallest part of one stage in which a way differs from the one before."""

    def __init__(self, ways: StageWays, failed: LayerComparison, feeds: Sequence[Arrays]) -> None:
        self._compiler = ways.compiler
        self._failed = failed
        self._feeds = feeds
        self._before, self._way = ways.pair(failed.level)
        known = self._before.graph.tensors
        # Not between a Q/DQ pair and its reader, which are one operator in INT8, and not at an output of a
        # Split: its other outputs may be needed inside.
        self._cuttable = {
            name
            for name, activation in self._way.graph.activations.items()
            if name in known and DEQUANTIZED not in name and activation.operator != "Split"
        }
        if failed.level == "engine":  # fails at once if the backend has no reproduction
            self._standalone(self._way.graph.model)

    def smallest(self) -> _Part:
        """Return the smallest failing part.

        The first tensor over tolerance may fail only with the extra outputs, or because of what reads it. So
        its output is the first of those tensors that fails as the only output, computed from the graph's
        inputs. Then the part is cut from its other end.

        Raises:
            EngineError: if none fails.
        """
        part_at = cache(self._part)
        deepest = len(self._way.graph.activations)

        def fails(name: str, depth: int) -> bool:
            return not part_at(name, depth).error <= self._failed.tolerance

        name = next((name for name in self._candidates() if fails(name, deepest)), None)
        if name is None:
            raise EngineError(
                f"the {self._failed.stage} differs only as a whole, no part of it over tolerance: "
                "report it with the bundle and the output of verify --layers"
            )
        depths = range(1, deepest)
        return part_at(name, 1 + bisect_left(depths, True, key=partial(fails, name)))

    def with_random_weights(self, part: _Part) -> _Part:
        """Return the part with random weights and inputs.

        Raises:
            EngineError: if it does not fail with them.
        """
        for seed in range(TRIED_SEEDS):
            models = [with_random_weights(model, seed) for model in (part.reference, part.reduced)]
            found = self._run(part.tensor, models[0], models[1], random_inputs(part.inputs, seed))
            if not found.error <= self._failed.tolerance:
                return found
        raise EngineError(
            f"{part.tensor}: within tolerance with random weights: the difference needs the trained weights: "
            "omit --random-weights"
        )

    def reproduction(self, part: _Part, *, is_random: bool) -> Reproduction:
        """Return what is written for a part."""
        graph = self._way.graph
        output = str(part.reduced.graph.outputs[0].name)
        return Reproduction(
            title=f"{self._failed.stage}, {self._failed.level} against {self._failed.against}, "
            f"{self._failed.precision.upper()}",
            tensor=part.tensor,
            reference=part.reference,
            reduced=part.reduced,
            standalone=self._standalone(part.reduced),
            inputs={graph.tensors.get(name, name): array for name, array in part.inputs.items()},
            expected={output: part.expected},
            error=part.error,
            tolerance=self._failed.tolerance,
            is_random=is_random,
        )

    def _candidates(self) -> list[str]:
        """Return the tensors to try as the output: the first over tolerance, then the last of all."""
        graph = self._way.graph
        over = [tensor.name for tensor in self._failed.over_tolerance[:TRIED_TENSORS]]
        last = [name for name in graph.activations if self._before.graph.partner(name) is not None][-1:]
        return list(dict.fromkeys((*over, *last)))

    @cached_property
    def _tensors(self) -> Arrays:
        """All tensors of the way before, on the image on which the first candidate differs most."""
        name = self._candidates()[0]
        partner = self._before.graph.partner(name)
        assert partner is not None
        largest, tensors = -1.0, {}
        for feeds in self._feeds:
            expected = self._before.graph.by_name(self._before.observed.infer(feeds))
            found = self._way.graph.by_name(self._way.observed.infer(feeds))
            error = float(channel_errors(found[name], expected[partner]).max())
            if error > largest:
                largest, tensors = error, {**feeds, **expected}
        return tensors

    def _part(self, name: str, depth: int) -> _Part:
        """Cut out the part that computes a tensor from those `depth` nodes before it, and run it."""
        before, way = self._before.graph, self._way.graph
        inputs = {read: self._tensors[read] for read in cut(way.activations, name, depth, self._cuttable)}
        partner = before.partner(name)
        assert partner is not None
        parts = [
            subgraph(
                graph.model,
                [graph.tensors.get(read, read) for read in inputs],
                [graph.tensors[output]],
                {graph.tensors.get(read, read): array.shape for read, array in inputs.items()},
            )
            for graph, output in ((before, partner), (way, name))
        ]
        return self._run(name, parts[0], parts[1], inputs)

    def _run(self, name: str, reference: ir.Model, reduced: ir.Model, inputs: Arrays) -> _Part:
        with model_runner(reference) as runner:
            (expected,) = runner.infer(_as_inputs(reference, inputs.values())).values()
        typed = _as_inputs(reduced, inputs.values())
        compiled = self._compiler.compile if self._failed.level == "engine" else model_runner
        with compiled(reduced) as runner:
            (found,) = runner.infer(typed).values()
        kept = dict(zip(inputs, typed.values(), strict=True))
        return _Part(name, reference, reduced, kept, expected, found)

    def _standalone(self, graph: ir.Model) -> Standalone:
        path = self._compiler.save(graph)
        if self._failed.level == "engine":
            return self._compiler.factory.backend.standalone(path, self._compiler.precision)
        return Standalone(path.read_bytes(), NODE_BY_NODE, ("onnxruntime",))


def _as_inputs(model: ir.Model, arrays: Iterable[npt.NDArray[np.generic]]) -> Outputs:
    """Return arrays as the inputs of a graph, in its order and types."""
    typed = zip(model.graph.inputs, arrays, strict=True)
    return {str(value.name): array.astype(value.dtype.numpy()) for value, array in typed if value.dtype}
