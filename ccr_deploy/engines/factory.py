"""Build, find and load the engines of a bundle for a target."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from ccr_deploy import CREATED_BY
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
    """Build, find and load the engines of one bundle for one target."""

    def __init__(
        self,
        bundle: Bundle,
        target_name: str,
        store: EngineStore,
        precisions: Mapping[Stage, EnginePrecision] | None = None,
    ) -> None:
        """Load the target and create its backend.

        Args:
            bundle: the bundle.
            target_name: the name of a target, or the path of its TOML file.
            store: the engine store.
            precisions: the precision of each stage; the target's precision for stages that are not listed.

        Raises:
            TargetError: if there is no such target.
            MissingExtraError: if the backend's library is not installed.
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
        """Create a factory for the precisions that were last built for a bundle and target.

        Args:
            bundle: the bundle.
            target_name: the name of a target, or the path of its TOML file.
            store: the engine store.
            precision: the precision of encoder and classifier, instead of those last built.

        Raises:
            TargetError: if there is no such target.
            MissingExtraError: if the backend's library is not installed.
            EngineError: if the store's record of the last build is damaged.
        """
        if precision:
            return cls(bundle, target_name, store, stage_precisions(precision))
        chosen = store.chosen(bundle, target_name)
        return cls(bundle, target_name, store, {stage: found.precision for stage, found in chosen.items()})

    def resolved(self, stage: Stage, schedule: Schedule | None = None) -> ResolvedTarget:
        """Return the target, resolved for a stage."""
        return resolve(self.target, stage, schedule, self._precisions.get(stage))

    def precision(self, stage: Stage) -> EnginePrecision:
        """Return the precision of a stage's engine."""
        return self.resolved(stage).precision

    def with_precision(self, precision: EnginePrecision) -> EngineFactory:
        """Create a factory for the same bundle, target and store in another precision."""
        return EngineFactory(self.bundle, self.target_name, self.store, stage_precisions(precision))

    def build(
        self,
        stage: Stage,
        schedule: Schedule | None = None,
        *,
        rebuild: bool = False,
        progress: Progress = SILENT,
    ) -> tuple[Engine, bool]:
        """Build a stage's engine, unless the store already has it.

        Args:
            stage: the stage.
            schedule: the unroll schedule of an encoder; None for the target's.
            rebuild: build the engine even if the store has it.
            progress: shows the progress of the build.

        Returns:
            The engine, and whether it was built by this call.

        Raises:
            WrongUsageError: if the bundle does not have the graph, or the target is not for this machine.
            BundleError: if the graph's file is damaged, or its hash is not the manifest's.
            EngineError: if the engine cannot be built or stored, the stored engine is damaged, or the backend
                does not support the precision on this machine.
        """
        self.backend.check_machine(self.target_name, self.target.machine)
        resolved, key, graph, graph_path = self._plan(stage, schedule)
        self.backend.check_precision(resolved.precision)
        row = PRECISIONS[resolved.precision]
        # A build from such a graph would succeed, with an engine that computes in FP16 or FP32.
        if graph and row.is_calibrated and not graph.quantized_convolutions:
            raise EngineError(
                f"{self.bundle.path / graph.file.name}: {row.label} was requested, but none of its "
                f"{graph.convolutions} convolutions is quantized: calibrate the bundle again"
            )
        if not rebuild and (found := self.store.find(key, self.backend.suffix)):
            return found, False
        origin = EngineOrigin(
            created_by=CREATED_BY,
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

    def find(
        self, stage: Stage, schedule: Schedule | None = None, *, require_verified: bool = False
    ) -> Engine:
        """Find a stage's engine in the store, and compare it with its sidecar.

        Args:
            stage: the stage.
            schedule: the unroll schedule of an encoder; None for the target's.
            require_verified: whether to refuse an engine that has not passed `ccr-deploy verify`.

        Raises:
            WrongUsageError: if it has not been built; the message has the command that builds it.
            BundleError: if the graph's file is damaged.
            EngineError: if the stored engine is damaged, or not verified although this is required.
        """
        _, key, _, _ = self._plan(stage, schedule)
        return find_engine(
            self.store,
            self.bundle,
            self.target_name,
            key,
            self.backend.suffix,
            require_verified=require_verified,
        )

    def graph_record(self, stage: Stage, schedule: Schedule | None = None) -> GraphRecord:
        """Return the record of the graph that a stage's engine is built from.

        Raises:
            WrongUsageError: if the bundle does not have the graph.
        """
        resolved = self.resolved(stage, schedule)
        return self.bundle.graph(stage, resolved.graph_precision, resolved.schedule)

    def load(self, engine: Engine) -> Runner:
        """Load an engine that was found or built.

        Raises:
            EngineError: if the backend rejects it, or another build replaced it meanwhile.
        """
        sidecar = engine.sidecar
        return load_engine(
            self.backend, engine.path, sidecar.key.precision, engine_sha256=sidecar.engine_sha256
        )

    def load_all(self, engines: Mapping[Stage, Engine]) -> dict[Stage, Runner]:
        """Load the engines of several stages; if one cannot be loaded, the others are closed.

        Raises:
            EngineError: if the backend rejects an engine, or another build replaced it meanwhile.
        """
        with ExitStack() as loaded:
            runners = {stage: loaded.enter_context(self.load(engine)) for stage, engine in engines.items()}
            loaded.pop_all()
        return runners

    def _plan(
        self, stage: Stage, schedule: Schedule | None
    ) -> tuple[ResolvedTarget, EngineKey, GraphRecord | None, Path | None]:
        """Return the resolved target, the engine's key, and the graph and its file, whose hash is checked."""
        resolved = self.resolved(stage, schedule)
        graph = None if self.backend.is_reference else self.graph_record(stage, schedule)
        path = self.bundle.file(graph.file) if graph else None
        if graph and path:
            # The key contains the hash that the manifest states. Without this check, a manifest with another
            # bundle's hash would get that bundle's engine, or store its own engine under that bundle's key.
            check_graph_hash(path, graph.graph_hash)
        return resolved, engine_key(self.bundle, stage, resolved, self.backend), graph, path


def stage_precisions(precision: EnginePrecision) -> dict[Stage, EnginePrecision]:
    """Return one precision for both stages of a chain."""
    return {"encoder": precision, "classifier": precision}
