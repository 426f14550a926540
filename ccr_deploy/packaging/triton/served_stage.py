"""Select what Triton runs for a stage: the bundle's graph in ONNX Runtime, or plans from the engine store."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.engines.sidecar import check_hash, read_sidecar, sidecar_path
from ccr_deploy.engines.store import Engine
from ccr_deploy.engines.verified import check_verified
from ccr_deploy.errors import EngineError, WrongUsageError
from ccr_deploy.targets.schema import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import ChainStage, Stage
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.targets.resolved import ResolvedTarget
    from ccr_deploy.targets.schema import Target

ServedBackend = Literal["onnxruntime", "tensorrt"]
GRAPH_FILE, PLAN_FILE = "model.onnx", "model.plan"
CPU_MAX_BATCH = 8
"""Larger batches are not faster on a CPU: their first request only waits longer."""
_DEVICE = re.compile(
    r"(?:(?P<gpu>.+) \()?compute capability (?P<capability>\d+\.\d+)(?P<later> or later)?\)?"
)


@dataclass(frozen=True)
class ServedStage:
    """One stage's files and settings for Triton.

    Attributes:
        stage: the stage.
        backend: the Triton backend that runs it.
        precision: the engine's precision.
        max_batch: the largest batch.
        threads: ONNX Runtime's threads; 0 for its default.
        files: the files of the version's folder, by name.
        capabilities: the plan for each compute capability; empty if one file serves every device.
        library_version: the version of TensorRT that the server must have; None for ONNX Runtime.
    """

    stage: Stage
    backend: ServedBackend
    precision: EnginePrecision
    max_batch: int
    threads: int
    files: Mapping[str, Path]
    capabilities: Mapping[str, str] = field(default_factory=dict)
    library_version: str | None = None

    @property
    def model_file(self) -> str:
        """The default file, loaded if the device's compute capability does not have its own."""
        return PLAN_FILE if self.backend == "tensorrt" else GRAPH_FILE


def served_stages(
    bundle: Bundle, name: str, target: Target, store: EngineStore, *, require_verified: bool = False
) -> tuple[ServedStage, ...]:
    """Return encoder and classifier of a bundle as Triton runs them.

    The precision is the one last built for bundle and target, otherwise the target's default.

    Args:
        bundle: the bundle.
        name: the target's name.
        target: the target.
        store: the engine store with the target's engines.
        require_verified: whether to refuse plans that have not passed `ccr-deploy verify`.

    Raises:
        WrongUsageError: if Triton does not support the target's backend, the bundle lacks a graph, a plan
            is not built, the target's plans do not take every batch size, or verified engines are required of
            ONNX Runtime.
        BundleError: if a graph is damaged.
        EngineError: if a plan is damaged, or not verified although this is required, or two plans are for the
            same compute capability.
    """
    chosen = {stage: built.precision for stage, built in store.chosen(bundle, name).items()}
    stages = {stage: resolve(target, stage, None, chosen.get(stage)) for stage in CHAIN_STAGES}
    if target.backend == "onnxruntime":
        if require_verified:
            raise WrongUsageError(
                f"--require-verified: target {name}: the repository gets graphs, which Triton optimizes when "
                "it loads them, not verified engines: omit the option, or choose a target for TensorRT"
            )
        threads = target.options.threads
        return tuple(_graph(bundle, stage, resolved, threads) for stage, resolved in stages.items())
    if target.backend == "tensorrt":
        for stage, resolved in stages.items():
            _check_takes_every_size(name, stage, resolved)
        found = {stage: _engines(bundle, stage, own, target, store) for stage, own in stages.items()}
        version = _common_version(bundle, name, store, found)
        if require_verified:
            for engine in (engine for versions in found.values() for engine in versions[version]):
                check_verified(engine, bundle, name, store)
        return tuple(_plans(stage, own, version, found[stage][version]) for stage, own in stages.items())
    raise WrongUsageError(
        f"target {name}: Triton does not support its backend, {target.backend}: "
        "choose a target for onnxruntime or tensorrt (ccr-deploy doctor lists them)"
    )


def _graph(bundle: Bundle, stage: Stage, resolved: ResolvedTarget, threads: int) -> ServedStage:
    # ONNX Runtime's optimizer has a defect that our backend avoids and Triton does not: see
    # ccr_deploy.backends.onnxruntime.int8.
    if resolved.precision == "int8":
        raise WrongUsageError(
            "INT8 graphs are not supported in Triton's ONNX Runtime (wrong results on a CPU, no speed-up): "
            "build FP32 engines for this target"
        )
    if resolved.precision not in {"fp32", "fp16"}:
        label = PRECISIONS[resolved.precision].label
        raise WrongUsageError(
            f"{label} is not supported by ONNX Runtime on a CPU: build FP32 engines for this target"
        )
    record = bundle.graph(stage, resolved.graph_precision, resolved.schedule).file
    return ServedStage(
        stage=stage,
        backend="onnxruntime",
        precision=resolved.precision,
        max_batch=CPU_MAX_BATCH,
        threads=threads,
        files={GRAPH_FILE: bundle.file(record)},
    )


def _engines(
    bundle: Bundle, stage: Stage, resolved: ResolvedTarget, target: Target, store: EngineStore
) -> dict[str, list[Engine]]:
    """Return a stage's plans that were built for this target on its GPUs, by version of TensorRT."""
    assert target.machine is not None
    graph = bundle.graph(stage, resolved.graph_precision, resolved.schedule)
    wanted = {
        "source_hash": graph.graph_hash,
        "graph_sha256": graph.file.sha256,
        "backend": "tensorrt",
        "target_digest": resolved.digest,
    }
    found = defaultdict(list)
    for path in sorted(store.path.glob(f"*/{stage}.{resolved.precision}.plan")):
        sidecar = read_sidecar(path)
        key = sidecar.key
        if any(getattr(key, name) != value for name, value in wanted.items()):
            continue
        if path.parent.name != key.digest:
            raise EngineError(
                f"{path}: the sidecar does not match the engine's folder: "
                "run ccr-deploy build-engine with --no-cache"
            )
        gpu = _device(path, key.device)["gpu"]
        if gpu is None or target.machine.has_gpu(gpu):
            found[key.backend_version].append(Engine(path, sidecar))
    return found


def _common_version(
    bundle: Bundle, name: str, store: EngineStore, found: Mapping[ChainStage, Mapping[str, list[Engine]]]
) -> str:
    """Return the newest version of TensorRT with plans of both stages for the same devices."""
    both = set(found["encoder"]) & set(found["classifier"])
    if not both:
        missing = " and ".join(stage for stage, engines in found.items() if not engines)
        what = f"no {missing} plan" if missing else "no plans of both stages for one version of TensorRT"
        raise WrongUsageError(
            f"{store.path}: {what} of {bundle.path} for target {name}: run "
            f"ccr-deploy build-engine {bundle.path} --target {name} on the target's GPU"
        )
    version = max(both, key=version_numbers)
    devices = [{engine.sidecar.key.device for engine in engines[version]} for engines in found.values()]
    if unpaired := devices[0] ^ devices[1]:
        raise WrongUsageError(
            f"{store.path}: only one stage has a plan for {', '.join(sorted(unpaired))} by TensorRT "
            f"{version}: run ccr-deploy build-engine {bundle.path} --target {name} on that GPU"
        )
    return version


def _check_takes_every_size(name: str, stage: Stage, resolved: ResolvedTarget) -> None:
    """Raise an error unless one profile takes every batch size from 1 on: Triton does not pad batches."""
    assert resolved.batch is not None
    if len(resolved.batch.profiles) > 1 or resolved.batch.profiles[0].min > 1:
        raise WrongUsageError(
            f"target {name}: the {stage}'s plans take only {resolved.batch}, and Triton does not pad: "
            "package for a target with dynamic = true in [batch], such as l4-triton or h200-triton"
        )


def _plans(stage: Stage, resolved: ResolvedTarget, version: str, engines: list[Engine]) -> ServedStage:
    assert resolved.batch is not None
    files: dict[str, Path] = {}
    capabilities: dict[str, str] = {}
    for engine in engines:
        check_hash(engine.path, engine.sidecar, sha256_of(engine.path))
        device = _device(engine.path, engine.sidecar.key.device)
        capability = device["capability"]
        name = PLAN_FILE if device["later"] else f"model.cc-{capability}.plan"
        if name in files:
            raise EngineError(
                f"{engine.path}: a second {stage} plan for compute capability {capability}, besides "
                f"{files[name]}, and Triton selects plans by capability only: build with "
                'hardware_compatibility = "same-compute-capability", or use a store with one of the two'
            )
        files[name] = engine.path
        files[sidecar_path(engine.path).with_name(f"{name}.json").name] = sidecar_path(engine.path)
        if not device["later"]:
            capabilities[str(capability)] = name
    return ServedStage(
        stage=stage,
        backend="tensorrt",
        precision=resolved.precision,
        max_batch=resolved.batch.largest,
        threads=0,
        files=files,
        capabilities=capabilities,
        library_version=version,
    )


def _device(path: Path, device: str) -> dict[str, str | None]:
    """Return GPU and compute capability from a sidecar's device.

    Raises:
        EngineError: if it has no compute capability.
    """
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise EngineError(
            f"{path}: the sidecar's device, {device}, has no compute capability: "
            "run ccr-deploy build-engine with --no-cache"
        )
    return match.groupdict()
