"""The files that attacks damage: a checkpoint, its bundle and engines, and one of each other kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.models.checkpoint import save_checkpoint, untrained_checkpoint
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import CalibrationTable, StageTable, TensorRange
from ccr_deploy.workflow.graphs import load_model
from tests.support.bundles import TINY
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from ccr_deploy.models.checkpoint import Checkpoint

TRAINED = (2, 3)
TARGET = """description = "a target"
backend = "onnxruntime"
schedule = "iteration-major"
[precision]
encoder = "fp32"
classifier = "fp32"
[options]
threads = 1
"""
RECIPE = """description = "a recipe"
samples = 3
held_out_samples = 5
method = "percentile"
percentile = 99.9
keep_high_precision = ["stem", "binarizer"]
"""
IMAGES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}


@dataclass(frozen=True)
class Files:
    """One of every file that is read, below one folder."""

    folder: Path
    checkpoint: Path
    bundle: Bundle
    store: Path
    engine: Path
    payload: Path
    images: tuple[Path, ...]
    table: Path
    target: Path
    recipe: Path
    report: Path

    @property
    def choice(self) -> Path:
        """The store's record of the last build."""
        return next(self.store.glob("chosen.*.json"))


def make_files(folder: Path) -> Files:
    """Write all files; every command that reads one of them succeeds."""
    checkpoint = folder / "model.pt"
    save_checkpoint(_checkpoint(), checkpoint)
    must("export", "--checkpoint", checkpoint, "--no-fp16", folder / "bundle")
    bundle, store = Bundle.open(folder / "bundle"), folder / "engines"
    must("build-engine", bundle.path, "--target", "cpu", "--engines", store)
    must("verify", bundle.path, "--target", "cpu", "--engines", store, "--report", folder / "report")
    code = np.random.default_rng(0).integers(0, 256, bundle.manifest.contract.code_bytes, np.uint8)
    payload = folder / "code.ccr"
    payload.write_bytes(encode_payload(code, bundle.manifest.contract))
    files = Files(
        folder=folder,
        checkpoint=checkpoint,
        bundle=bundle,
        store=store,
        engine=EngineFactory(bundle, "cpu", EngineStore(store)).find("encoder").path,
        payload=payload,
        images=tuple(_image(folder, name, suffix) for name, suffix in IMAGES.items()),
        table=folder / "ranges.json",
        target=folder / "target.toml",
        recipe=folder / "recipe.toml",
        report=folder / "report" / "benchmark.json",
    )
    files.table.write_text(_table(bundle).to_json())
    files.target.write_text(TARGET)
    files.recipe.write_text(RECIPE)
    files.report.write_text(json.dumps(_benchmark(folder / "report" / "verify.json")))
    return files


def export_arguments(files: Files, bundle: Path, iterations: int) -> tuple[object, ...]:
    """An export of the checkpoint with one of its T."""
    schedule = ("--schedule", "iteration-major", "--no-fp16")
    return "export", "--checkpoint", files.checkpoint, "--iterations", iterations, *schedule, bundle


def must(*arguments: object) -> None:
    """Run a command that succeeds."""
    outcome = run(*arguments)
    assert outcome.status == 0, outcome.stderr


def _checkpoint() -> Checkpoint:
    names = ("apple", "bread", "cheese", "dates", "egg")
    return replace(
        untrained_checkpoint(TINY),
        class_names=names,
        trained_iterations=TRAINED,
        metrics={"top1_percent": 75.0},
    )


def _image(folder: Path, name: str, suffix: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (TINY.image_height, TINY.image_width, 3), np.uint8)
    path = folder / f"photo.{suffix}"
    Image.fromarray(pixels).save(path, format=name)
    return path


def _table(bundle: Bundle) -> CalibrationTable:
    graphs = {
        "encoder": bundle.graph("encoder", "fp32", "iteration-major"),
        "classifier": bundle.graph("classifier", "fp32", None),
    }
    stages = {
        stage: StageTable(
            tensors={
                name: TensorRange(low=-1, high=1, method="minmax")
                for name in quantized_activations(load_model(bundle, graph))
            }
        )
        for stage, graph in graphs.items()
    }
    return CalibrationTable(
        schema_version=1,
        created_by="tests.attack",
        graph_hashes={stage: graph.graph_hash for stage, graph in graphs.items()},
        image_count=3,
        images_sha256="0" * 64,
        preprocessing=bundle.manifest.contract.preprocessing,
        versions={},
        high_precision=("stem",),
        stages=stages,
    )


def _benchmark(verification: Path) -> dict[str, object]:
    """A report of `benchmark` of the same bundle, from the results in the repository."""
    results = Path(__file__).parent.parent.parent / "benchmarks" / "results" / "demo-benchmark.json"
    found = json.loads(verification.read_text())
    same = ("contract_id", "weights_sha256", "trained_iterations", "target")
    return {**json.loads(results.read_text()), **{name: found[name] for name in same}}
