"""Fake TensorRT plans, as if built on GPUs: paths and sidecars are real, the plans' content is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.engines.sidecar import EngineKey, EngineOrigin
from ccr_deploy.targets.schema import load_target, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import Engine, EngineStore

H200 = "NVIDIA H200 (compute capability 9.0)"
L4 = "NVIDIA L4 (compute capability 8.9)"
VERSION = "10.13.3.9"
DYNAMIC = "encoder = [16]\nclassifier = [32]\ndynamic = true\n"


def fleet_target(
    folder: Path, compatibility: str = "none", batch: str = DYNAMIC, gpus: str = '"NVIDIA*"'
) -> Path:
    """Write a TensorRT target in FP32 for GPUs of several kinds."""
    path = folder / "fleet.toml"
    path.write_text(
        'description = "a fleet"\n'
        'backend = "tensorrt"\n'
        "[machine]\n"
        f'gpus = [{gpus}]\nfrom_version = "10.3"\nbelow_version = "12"\n'
        "[batch]\n"
        f"{batch}"
        "[options]\n"
        f'hardware_compatibility = "{compatibility}"\n'
    )
    return path


def put_plan(
    bundle: Bundle,
    target_file: Path,
    store: EngineStore,
    stage: Stage,
    device: str,
    *,
    version: str = VERSION,
) -> Engine:
    """Put a fake plan into the store, as `build-engine` would on that device."""
    target = load_target(str(target_file))
    resolved = resolve(target, stage)
    graph = bundle.graph(stage, resolved.graph_precision, resolved.schedule)
    key = EngineKey(
        stage=stage,
        precision=resolved.precision,
        schedule=resolved.schedule,
        source_hash=graph.graph_hash,
        graph_sha256=graph.file.sha256,
        backend="tensorrt",
        backend_version=version,
        device=device,
        target_digest=resolved.digest,
    )
    origin = EngineOrigin(
        created_by="a test",
        target="fleet",
        resolved_target=resolved,
        graph_file=graph.file.name,
        convolutions=graph.convolutions,
        quantized_convolutions=0,
    )

    def write(path: Path) -> BuildFacts:
        path.write_bytes(f"{stage} by {version} for {device}".encode())
        return BuildFacts(library_version=version)

    return store.build(key, ".plan", origin, write)


def put_plans(
    bundle: Bundle, target_file: Path, store: EngineStore, device: str, version: str = VERSION
) -> None:
    """Put fake plans of encoder and classifier for one device into the store."""
    for stage in ("encoder", "classifier"):
        put_plan(bundle, target_file, store, stage, device, version=version)
