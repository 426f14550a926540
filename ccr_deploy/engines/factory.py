"""From a bundle and a target to engines in the store, and from there into memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ccr_deploy import __version__
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.progress import SILENT
from ccr_deploy.engines.build_source import build_source
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.engines.lookup import engine_key, find_engine
from ccr_deploy.engines.sidecar import EngineOrigin
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.canonical_hash import check_graph_hash
from ccr_deploy.targets.schema import load_target, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.manifest import GraphRecord
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.core.stages import Schedule, Stage
    from ccr_deploy.engines.sidecar import EngineKey
    from ccr_deploy.engines.store import Engine, EngineStore
    from ccr_deploy.targets.resolved import ResolvedTarget


class EngineFactory:
    """Builds, finds and loads the engines of one bundle for one target."""

    def __init__(
        self,
        bundle: Bundle,
        target_name: str,
        store: EngineStore,
        precisions: Mapping[Stage, EnginePrecision] | None = None,
    ) -> None:
        """Loads the target called `target_name`; `precisions`, stage by stage, go over the target's.

        Raises:
            TargetError: there is no such target.
            MissingExtraError: its backend is not installed.
        """
        self.bundle = bundle
        self.target_name = target_name
        self.store = store
        self.target = load_target(target_name)
        self.backend = make_backend(self.target.options)
        self._precisions = precisions or {}

    @classmethod
    def of_last_build(
        cls, bundle: Bundle, target_name: str, store: EngineStore, precision: EnginePrecision | None = None
    ) -> EngineFactory:
        """The factory for what was last built for this bundle and target, unless a precision is named.

        Raises:
            TargetError, MissingExtraError: as the class says.
            EngineError: the store's note of it is damaged.
        """
        if precision:
            return cls(bundle, target_name, store, stage_precisions(precision))
        chosen = store.chosen(bundle, target_name)
        return cls(bundle, target_name, store, {stage: found.precision for stage, found in chosen.items()})

    def resolved(self, stage: Stage, schedule: Schedule | None = None) -> ResolvedTarget:
        """What the stage's engine is built for."""
        return resolve(self.target, stage, schedule, self._precisions.get(stage))

    def precision(self, stage: Stage) -> EnginePrecision:
        """How the stage's engine computes."""
        return self.resolved(stage).precision

    def with_precision(self, precision: EnginePrecision) -> EngineFactory:
        """A factory of the same bundle, target and store for another precision."""
        return EngineFactory(self.bundle, self.target_name, self.store, stage_precisions(precision))

    def build(
        self,
        stage: Stage,
        schedule: Schedule | None = None,
        *,
        rebuild: bool = False,
        progress: Progress = SILENT,
    ) -> tuple[Engine, bool]:
        """The stage's engine, and whether it was built now (an unchanged one is not built again).

        Raises:
            WrongUsageError: the bundle lacks the graph, or this is not the target's machine.
            BundleError: the graph's file is damaged, or is another graph than the manifest says.
            EngineError: the engine cannot be built or stored, the stored one is damaged, or the backend does
                not compute in that precision here.
        """
        self.backend.check_machine(self.target_name, self.target.machine)
        resolved, key, graph, graph_path = self._plan(stage, schedule)
        self.backend.check_precision(resolved.precision)
        row = PRECISIONS[resolved.precision]
        if graph and row.is_calibrated and not graph.quantized_convolutions:
            raise EngineError(
                f"{self.bundle.path / graph.file.name}: {row.label} was asked for, but none of its "
                f"{graph.convolutions} convolutions is quantized: calibrate the bundle again"
            )
        if not rebuild and (found := self.store.find(key, self.backend.suffix)):
            return found, False
        origin = EngineOrigin(
            created_by=f"ccr-deploy {__version__}",
            target=self.target_name,
            resolved_target=resolved,
            graph_file=graph.file.name if graph else None,
            convolutions=graph.convolutions if graph else None,
            quantized_convolutions=graph.quantized_convolutions if graph else None,
        )
        with progress.task(f"building {stage} {resolved.precision}", 100) as advance:
            caches = self.store.caches
            source = build_source(self.bundle, stage, resolved, graph_path, caches=caches, advance=advance)
            write = partial(self.backend.build, source)
            return self.store.build(key, self.backend.suffix, origin, write), True

    def find(self, stage: Stage, schedule: Schedule | None = None) -> Engine:
        """The stage's engine, checked against its sidecar.

        Raises:
            WrongUsageError: it was not built yet; the message says how.
            BundleError: the graph's file is damaged.
            EngineError: the stored engine is damaged.
        """
        _, key, _, _ = self._plan(stage, schedule)
        return find_engine(self.store, self.bundle, self.target_name, key, self.backend.suffix)

    def graph_record(self, stage: Stage, schedule: Schedule | None = None) -> GraphRecord:
        """The graph that the stage's engine is built from.

        Raises:
            WrongUsageError: the bundle lacks it.
        """
        resolved = self.resolved(stage, schedule)
        return self.bundle.graph(stage, resolved.graph_precision, resolved.schedule)

    def load(self, engine: Engine) -> Runner:
        """The engine in memory.

        Raises:
            EngineError: the backend refuses it.
        """
        return load_engine(self.backend, engine.path, engine.sidecar.key.precision)

    def _plan(
        self, stage: Stage, schedule: Schedule | None
    ) -> tuple[ResolvedTarget, EngineKey, GraphRecord | None, Path | None]:
        """What the engine is built for, its key, and its graph: the very one that the key names."""
        resolved = self.resolved(stage, schedule)
        graph = None if self.backend.is_reference else self.graph_record(stage, schedule)
        path = self.bundle.file(graph.file) if graph else None
        if graph and path:
            check_graph_hash(path, graph.graph_hash)
        return resolved, engine_key(self.bundle, stage, resolved, self.backend), graph, path


def stage_precisions(precision: EnginePrecision) -> dict[Stage, EnginePrecision]:
    """One precision for both stages of a chain."""
    return {"encoder": precision, "classifier": precision}
