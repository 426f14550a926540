"""From a bundle and a target to engines in the store, and from there into memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ccr_deploy import __version__
from ccr_deploy.backends import backend
from ccr_deploy.backends.base import BuildSource
from ccr_deploy.engine_store import EngineKey, EngineOrigin
from ccr_deploy.errors import EngineError, WrongUsageError
from ccr_deploy.machine_fit import check_machine
from ccr_deploy.progress import SILENT
from ccr_deploy.target import REFERENCE_BACKEND, TensorRtTarget, bound_version, load_target, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.backends.base import Backend, Runner
    from ccr_deploy.bundle import Bundle, GraphRecord, Manifest, Schedule, Stage
    from ccr_deploy.engine_store import Engine, EngineStore
    from ccr_deploy.precisions import EnginePrecision
    from ccr_deploy.progress import Progress
    from ccr_deploy.target import ResolvedTarget


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
        self.backend: Backend = backend(self.target.backend, self.target.options)
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
        precisions = stage_precisions(precision) if precision else store.chosen(bundle, target_name)
        return cls(bundle, target_name, store, precisions)

    def precision(self, stage: Stage) -> EnginePrecision:
        """How the stage's engine computes."""
        return self._resolve(stage).precision

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
            EngineError: the engine cannot be built or stored, the stored one is damaged, or the backend does
                not compute in that precision here.
        """
        if isinstance(self.target, TensorRtTarget):
            check_machine(self.target_name, self.target, self.backend.version)
        resolved, key, graph = self._plan(stage, schedule)
        self.backend.check_precision(resolved.precision)
        if graph and resolved.precision == "int8" and not graph.quantized_convolutions:
            raise EngineError(
                f"{self.bundle.path / graph.file.name}: INT8 was asked for, but none of its "
                f"{graph.convolutions} convolutions is quantized: calibrate the bundle again"
            )
        found = None if rebuild else self.store.find(key, self.backend.suffix)
        if found:
            return found, False
        graph_path = self.bundle.file(graph.file) if graph else None
        origin = EngineOrigin(
            created_by=f"ccr-deploy {__version__}",
            target=self.target_name,
            resolved_target=resolved,
            graph_file=graph.file.name if graph else None,
            convolutions=graph.convolutions if graph else None,
            quantized_convolutions=graph.quantized_convolutions if graph else None,
        )
        with progress.task(f"building {stage} {resolved.precision}", 100) as advance:
            source = BuildSource(self.bundle, stage, resolved, graph_path, self.store.caches, advance)
            built = self.store.build(
                key, self.backend.suffix, origin, lambda path: self.backend.build(source, path)
            )
        return built, True

    def find(self, stage: Stage, schedule: Schedule | None = None) -> Engine:
        """The stage's engine, checked against its sidecar.

        Raises:
            WrongUsageError: it was not built yet; the message says how.
            EngineError: the stored engine is damaged.
        """
        _, key, _ = self._plan(stage, schedule)
        engine = self.store.find(key, self.backend.suffix)
        if engine is None:
            raise WrongUsageError(
                f"{self.store.path}: no {key.precision} {stage} engine of {self.bundle.path} for the target "
                f"{self.target_name}{self._difference(key)}: run "
                f"ccr-deploy build-engine {self.bundle.path} --target {self.target_name}"
                f"{'' if key.precision == 'fp32' else f' --{key.precision}'}"
            )
        return engine

    def graph_record(self, stage: Stage) -> GraphRecord:
        """The graph that the stage's engine is built from.

        Raises:
            WrongUsageError: the bundle lacks it.
        """
        resolved = self._resolve(stage)
        return self.bundle.graph(stage, resolved.graph_precision, resolved.schedule)

    def load(self, engine: Engine) -> Runner:
        """The engine in memory.

        Raises:
            EngineError: the backend refuses it.
        """
        return self.backend.load(engine.path, engine.sidecar.key.precision)

    def _difference(self, key: EngineKey) -> str:
        """What the nearest engine in the store was built for instead."""
        similar = self.store.similar(key)
        if similar is None:
            return ""
        for field in ("backend_version", "device"):
            found, wanted = getattr(similar.key, field), getattr(key, field)
            if found != wanted:
                return f" (one is there whose {field} is {found}, expected {wanted})"
        return f" (one is there for other settings, of the target {similar.origin.target})"

    def _resolve(self, stage: Stage, schedule: Schedule | None = None) -> ResolvedTarget:
        return resolve(self.target, stage, schedule, self._precisions.get(stage))

    def _plan(
        self, stage: Stage, schedule: Schedule | None
    ) -> tuple[ResolvedTarget, EngineKey, GraphRecord | None]:
        resolved = self._resolve(stage, schedule)
        graph = None
        manifest = self.bundle.manifest
        if self.target.backend == REFERENCE_BACKEND:
            source_hash = _reference_hash(manifest, stage)
        else:
            graph = self.bundle.graph(stage, resolved.graph_precision, resolved.schedule)
            source_hash = graph.graph_hash
        key = EngineKey(
            stage=stage,
            precision=resolved.precision,
            schedule=resolved.schedule,
            source_hash=source_hash,
            backend=self.backend.name,
            backend_version=bound_version(self.target.options, self.backend.version),
            device=self.backend.device,
            target_digest=resolved.digest,
        )
        return resolved, key, graph


def stage_precisions(precision: EnginePrecision) -> dict[Stage, EnginePrecision]:
    """One precision for both stages of a chain."""
    return {"encoder": precision, "classifier": precision}


def _reference_hash(manifest: Manifest, stage: Stage) -> str:
    """What the reference's engine is made of: weights, configuration (T, image size) and preprocessing."""
    baseline = manifest.baseline if stage == "baseline" else None
    model, weights = (baseline.model, baseline.weights) if baseline else (manifest.model, manifest.weights)
    parts = (weights.sha256, model.model_dump_json(), repr(manifest.contract.preprocessing))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
