"""Ways to run a stage with its intermediate tensors as additional outputs."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.engines.build_source import build_source
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.graphs.activations import DEQUANTIZED, activations, with_outputs
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.workflow.graphs import graph_runner, load_model, model_runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ccr_deploy.backends.base import BuildSource
    from ccr_deploy.backends.runner import Outputs, Runner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.graphs.activations import Activation
    from ccr_deploy.verification.results import Level


@dataclass(frozen=True)
class ObservedGraph:
    """A graph that is run, and the names that its activations have in it.

    `tensors` are the names in `model` by logical name. They differ from those of `activations` if `model`
    emulates a precision: the value that readers see is then the rounded one.
    """

    model: ir.Model
    activations: Mapping[str, Activation]
    tensors: Mapping[str, str]

    def partner(self, name: str) -> str | None:
        """Return the logical name of the tensor to compare `name` with; None if this graph has none.

        A graph without the Q/DQ pair has the tensor before it.
        """
        candidates = (name, name.removesuffix(DEQUANTIZED))
        return next((candidate for candidate in candidates if candidate in self.tensors), None)

    def with_all_outputs(self) -> ir.Model:
        """Return the graph with all activations as outputs."""
        return with_outputs(self.model, self.tensors.values())

    def by_name(self, outputs: Outputs) -> Outputs:
        """Return outputs by logical name; those of the graph itself are among them."""
        return {name: outputs[tensor] for name, tensor in self.tensors.items() if tensor in outputs}


def observed_graph(bundle: Bundle, graph: GraphRecord) -> ObservedGraph:
    """Return a graph of a bundle as a CPU runs it node by node: FP16 is emulated.

    Raises:
        BundleError: if the graph's file is damaged.
        MissingExtraError: if onnx-ir is not installed.
    """
    written = written_graph(bundle, graph)
    if PRECISIONS[graph.precision].rounding is None:
        return written
    emulated = emulate(written.model, graph.precision)
    taken = ir.convenience.create_value_mapping(emulated.graph)
    tensors = {
        name: f"{tensor}/rounded" if f"{tensor}/rounded" in taken else tensor
        for name, tensor in written.tensors.items()
    }
    return ObservedGraph(emulated, written.activations, tensors)


def written_graph(bundle: Bundle, graph: GraphRecord) -> ObservedGraph:
    """Return a graph of a bundle as it is written, which engines are built from.

    Raises:
        BundleError: if the graph's file is damaged.
        MissingExtraError: if onnx-ir is not installed.
    """
    model = load_model(bundle, graph)
    found = activations(model)
    return ObservedGraph(model, found, {name: activation.tensor for name, activation in found.items()})


@dataclass(frozen=True)
class EngineCompiler:
    """Builds engines of a stage from graphs that are not the bundle's, for a target's backend."""

    factory: EngineFactory
    stage: ChainStage
    folder: Path

    @property
    def precision(self) -> EnginePrecision:
        """The precision of the engines."""
        return self.factory.precision(self.stage)

    def compile(self, model: ir.Model) -> Runner:
        """Build and load an engine of a graph in memory.

        Raises:
            EngineError: if the backend rejects the graph.
        """
        path = self.save(model)
        return self.factory.backend.compile(replace(self._source, graph=path), self.folder)

    def save(self, model: ir.Model) -> Path:
        """Write a graph into the temporary folder."""
        path = self.folder / "graph.onnx"
        ir.save(model, path)
        return path

    @property
    def _source(self) -> BuildSource:
        resolved = self.factory.resolved(self.stage)
        return build_source(
            self.factory.bundle, self.stage, resolved, None, caches=self.folder, advance=lambda _: None
        )


@dataclass(frozen=True)
class ObservedWay:
    """One way to run a stage: with all activations as outputs, and as it is."""

    level: Level
    graph: ObservedGraph
    observed: Runner
    plain: Runner


@dataclass(frozen=True)
class StageWays:
    """The ways to run a stage, in the order in which they are made from each other."""

    stage: ChainStage
    precision: EnginePrecision
    compiler: EngineCompiler
    ways: tuple[ObservedWay, ...]

    def pair(self, level: Level) -> tuple[ObservedWay, ObservedWay]:
        """Return the way before a level, and the way of that level."""
        return next((before, way) for before, way in pairwise(self.ways) if way.level == level)


@contextmanager
def stage_ways(bundle: Bundle, factory: EngineFactory, stage: ChainStage) -> Iterator[StageWays]:
    """Yield the ways to run a stage; they are closed afterwards.

    Args:
        bundle: the bundle.
        factory: engine factory of the target.
        stage: the stage.

    Raises:
        WrongUsageError: if the target is for another machine.
        EngineError: if an engine cannot be built or run on this machine.
    """
    factory.backend.check_machine(factory.target_name, factory.target.machine)
    factory.backend.check_runs_here()
    factory.backend.check_precision(factory.precision(stage))
    record = factory.graph_record(stage)
    fp32 = bundle.graph(stage, "fp32", record.schedule)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ccr-deploy-"))
        compiler = EngineCompiler(factory, stage, Path(folder))
        ways: list[ObservedWay] = []
        graphs: dict[Level, GraphRecord] = {"graph": record}
        if fp32 != record:
            graphs = {"fp32-graph": fp32, **graphs}
        for level, graph in graphs.items():
            observed = observed_graph(bundle, graph)
            marked, plain = model_runner(observed.with_all_outputs()), graph_runner(bundle, graph)
            ways.append(ObservedWay(level, observed, stack.enter_context(marked), stack.enter_context(plain)))
        written = written_graph(bundle, record)
        engine = stack.enter_context(compiler.compile(written.with_all_outputs()))
        in_use = stack.enter_context(_plain_engine(factory, compiler, written))
        ways.append(ObservedWay("engine", written, engine, in_use))
        yield StageWays(stage, compiler.precision, compiler, tuple(ways))


def _plain_engine(factory: EngineFactory, compiler: EngineCompiler, written: ObservedGraph) -> Runner:
    """Load the engine in the store; if it was not built, compile one."""
    try:
        return factory.load(factory.find(compiler.stage))
    except WrongUsageError:
        return compiler.compile(written.model)
