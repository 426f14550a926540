"""What Triton runs for a stage: the bundle's graph by ONNX Runtime, or plans from the engine store."""

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
"""Larger batches make nothing faster on a CPU; the first of their requests only waits longer."""
_DEVICE = re.compile(
    r"(?:(?P<gpu>.+) \()?compute capability (?P<capability>\d+\.\d+)(?P<later> or later)?\)?"
)


@dataclass(frozen=True)
class ServedStage:
    """One stage's files and settings for Triton.

    `files` go into the version's folder under their keys. `capabilities` name the plan for each compute
    capability; it is empty where one file serves every device. `library_version` is TensorRT's, which the
    server must have.
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
        """The file that is loaded where no compute capability has one of its own."""
        return PLAN_FILE if self.backend == "tensorrt" else GRAPH_FILE


def served_stages(bundle: Bundle, name: str, target: Target, store: EngineStore) -> tuple[ServedStage, ...]:
    """Encoder and classifier of a bundle for the target called `name`.

    Their precision is the one that was last built for bundle and target, else the target's.

    Raises:
        WrongUsageError: Triton does not run the target's backend, the bundle lacks a graph, a plan was not
            built, or its target's smallest batch is not 1.
        BundleError, EngineError: a graph or a plan is damaged, or two plans are for one compute capability.
    """
    chosen = {stage: built.precision for stage, built in store.chosen(bundle, name).items()}
    stages = {stage: resolve(target, stage, None, chosen.get(stage)) for stage in CHAIN_STAGES}
    if target.backend == "onnxruntime":
        threads = target.options.threads
        return tuple(_graph(bundle, stage, resolved, threads) for stage, resolved in stages.items())
    if target.backend == "tensorrt":
        found = {stage: _engines(bundle, stage, own, target, store) for stage, own in stages.items()}
        version = _common_version(bundle, name, store, found)
        return tuple(_plans(stage, own, version, found[stage][version]) for stage, own in stages.items())
    raise WrongUsageError(
        f"the target {name} is for {target.backend}, which Triton does not run: "
        "choose one for onnxruntime or tensorrt (ccr-deploy doctor lists them)"
    )


def _graph(bundle: Bundle, stage: Stage, resolved: ResolvedTarget, threads: int) -> ServedStage:
    if resolved.precision == "int8":  # see ccr_deploy.backends.onnxruntime.int8; nothing is lost by it
        raise WrongUsageError(
            "Triton's ONNX Runtime would optimize INT8 graphs wrongly on a CPU, and no version gains speed "
            "from them: build FP32 engines for this target"
        )
    if resolved.precision not in {"fp32", "fp16"}:
        label = PRECISIONS[resolved.precision].label
        raise WrongUsageError(f"ONNX Runtime has no {label} on a CPU: build FP32 engines for this target")
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
    """The plans of a stage that were built for this target on one of its GPUs, by TensorRT's version."""
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
            raise EngineError(f"{path}: its sidecar is another engine's, or was changed: build it again")
        gpu = _device(path, key.device)["gpu"]
        if gpu is None or target.machine.has_gpu(gpu):
            found[key.backend_version].append(Engine(path, sidecar))
    return found


def _common_version(
    bundle: Bundle, name: str, store: EngineStore, found: Mapping[ChainStage, Mapping[str, list[Engine]]]
) -> str:
    """The newest version of TensorRT that has plans of both stages, and for the same devices."""
    both = set(found["encoder"]) & set(found["classifier"])
    if not both:
        missing = " and ".join(stage for stage, engines in found.items() if not engines)
        what = f"no {missing} plan" if missing else "no two plans by one version of TensorRT"
        raise WrongUsageError(
            f"{store.path}: {what} of {bundle.path} for the target {name}: run "
            f"ccr-deploy build-engine {bundle.path} --target {name} on the target's GPU"
        )
    version = max(both, key=version_numbers)
    devices = [{engine.sidecar.key.device for engine in engines[version]} for engines in found.values()]
    if unpaired := devices[0] ^ devices[1]:
        raise WrongUsageError(
            f"{store.path}: {', '.join(sorted(unpaired))} has a plan of one stage alone, by TensorRT "
            f"{version}: run ccr-deploy build-engine {bundle.path} --target {name} there"
        )
    return version


def _plans(stage: Stage, resolved: ResolvedTarget, version: str, engines: list[Engine]) -> ServedStage:
    assert resolved.batch is not None
    if resolved.batch.min > 1:
        raise WrongUsageError(
            f"the {stage}'s plans take at least {resolved.batch.min} images, Triton also runs single ones: "
            "build them with a target whose batch.min is 1"
        )
    files: dict[str, Path] = {}
    capabilities: dict[str, str] = {}
    for engine in engines:
        check_hash(engine.path, engine.sidecar, sha256_of(engine.path))
        device = _device(engine.path, engine.sidecar.key.device)
        capability = device["capability"]
        name = PLAN_FILE if device["later"] else f"model.cc-{capability}.plan"
        if name in files:
            raise EngineError(
                f"{engine.path}: a second {stage} plan for compute capability {capability}, beside "
                f"{files[name]}: Triton chooses by that alone; build with hardware_compatibility = "
                '"same-compute-capability", or package from a store with one of the two'
            )
        files[name] = engine.path
        files[sidecar_path(engine.path).with_name(f"{name}.json").name] = sidecar_path(engine.path)
        if not device["later"]:
            capabilities[str(capability)] = name
    return ServedStage(
        stage=stage,
        backend="tensorrt",
        precision=resolved.precision,
        max_batch=resolved.batch.max,
        threads=0,
        files=files,
        capabilities=capabilities,
        library_version=version,
    )


def _device(path: Path, device: str) -> dict[str, str | None]:
    """The parts of what a sidecar says its plan runs on.

    Raises:
        EngineError: it does not say a compute capability.
    """
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise EngineError(f"{path}: its sidecar's device, {device}, names no compute capability")
    return match.groupdict()
