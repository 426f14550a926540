"""Plant faults for real into copies of a bundle or into built engines, and verify them.

``python -m benchmarks.planting BUNDLE IMAGES STORE`` verifies INT8 engines whose sums saturate, and prints
the result as JSON: `verify_saturated` runs it in a process with fewer instruction sets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from msgspec import structs
from PIL import Image

from benchmarks.scaffold import from_json, to_json
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE, Int8Weights
from ccr_deploy.bundle.graph_files import add_graph
from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.bundle.writer import writing_bundle
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.core.stages import CHAIN_STAGES, DEFAULT_SCHEDULE
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.results import VerificationReport
from ccr_deploy.workflow.graphs import load_model
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.reference import pytorch_reference
from ccr_deploy.workflow.verify import verify_bundle

if TYPE_CHECKING:
    from benchmarks.plants import Plant
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import ChainStage

TARGET = "cpu"
SATURATING_TARGET = "cpu-openvino"
SAMPLES = 64
LARGEST_CLASS = 8
"""Images of a class that `write_answered_images` writes at most."""


def verify_planted(bundle: Bundle, plant: Plant, images: Path, folder: Path) -> VerificationReport:
    """Plant a fault, build the engines and verify them.

    Args:
        bundle: a healthy bundle, which is not changed.
        plant: the fault.
        images: folder of images.
        folder: where a copy of the bundle, and the engines, are written.
    """
    store = EngineStore(folder / "engines")
    faulty = planted(bundle, plant, folder / "bundle", store)
    return verify_bundle(faulty, TARGET, store, precision=plant.precision, images=images, samples=SAMPLES)


def planted(bundle: Bundle, plant: Plant, folder: Path, store: EngineStore) -> Bundle:
    """Return a bundle with a fault, and build its engines.

    Args:
        bundle: a healthy bundle.
        plant: the fault.
        folder: where the copy of the bundle is written.
        store: where the engines are built.
    """
    shutil.copytree(bundle.path, folder)
    copy = Bundle.open(folder)
    faulty = _edited(copy, plant) if plant.edit else _with_shuffled_classes(copy)
    _build(faulty, TARGET, plant.precision, store)
    if not plant.is_in_engine:
        return faulty
    _replace_engine(bundle, faulty, store)
    return bundle


def _edited(bundle: Bundle, plant: Plant) -> Bundle:
    assert plant.edit is not None
    stage: ChainStage = "classifier" if plant.stage == "classifier" else "encoder"
    old = bundle.graph(stage, plant.graph, DEFAULT_SCHEDULE if stage == "encoder" else None)
    model = plant.edit(bundle, load_model(bundle, old))
    with writing_bundle(bundle.path) as writer:
        new = add_graph(writer, model, stage, old.precision, old.schedule)
        graphs = tuple(new if graph == old else graph for graph in bundle.manifest.graphs)
        writer.commit(structs.replace(bundle.manifest, graphs=graphs))
    return Bundle.open(bundle.path)


def _with_shuffled_classes(bundle: Bundle) -> Bundle:
    names = bundle.manifest.class_names
    with writing_bundle(bundle.path) as writer:
        writer.commit(structs.replace(bundle.manifest, class_names=(*names[1:], names[0])))
    return Bundle.open(bundle.path)


def _build(bundle: Bundle, target: str, precision: EnginePrecision, store: EngineStore) -> None:
    factory = EngineFactory(bundle, target, store, stage_precisions(precision))
    for stage in CHAIN_STAGES:
        factory.build(stage)


def _replace_engine(healthy: Bundle, faulty: Bundle, store: EngineStore) -> None:
    """Replace the encoder's engine by that of another bundle, with its hash in the sidecar."""
    engines = [EngineFactory(bundle, TARGET, store).build("encoder")[0] for bundle in (healthy, faulty)]
    EngineFactory(healthy, TARGET, store).build("classifier")
    old, new = engines
    write_atomically(old.path, new.path.read_bytes())
    sidecar = structs.replace(old.sidecar, engine_sha256=sha256_of(new.path))
    write_atomically(sidecar_path(old.path), to_json(sidecar))


def write_answered_images(bundle: Bundle, images: Path, folder: Path) -> None:
    """Write images into folders named by the class that PyTorch answers: as labelled by a perfect network.

    Args:
        bundle: a healthy bundle.
        images: folder of images.
        folder: where the folders are written.
    """
    chosen = image_set(bundle, images)
    store = EngineStore(folder / "engines")
    reference = pytorch_reference(bundle, AnswerCache(store.path), store)
    written: Counter[str] = Counter()
    for batch in chosen.batches:
        answers, _ = reference.answer(batch)
        for pixels, top1 in zip(batch, answers.logits["chain"].argmax(axis=1), strict=True):
            name = bundle.manifest.class_name(int(top1))
            written[name] += 1
            if written[name] <= LARGEST_CLASS:
                path = folder / "images" / name / f"{written[name]}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


def verify_saturated(bundle: Bundle, images: Path, folder: Path) -> VerificationReport:
    """Verify OpenVINO's INT8 engines with 8-bit weights in a process that may not use VNNI.

    Args:
        bundle: a healthy bundle with INT8 graphs.
        images: folder of images.
        folder: where the engines are written.
    """
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.planting", str(bundle.path), str(images), str(folder)],
        env={**os.environ, MAX_ISA_VARIABLE: "AVX2"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return from_json(finished.stdout, VerificationReport)


def _verify_with_misread_flags(bundle: Bundle, images: Path, store: EngineStore) -> VerificationReport:
    from ccr_deploy.backends.openvino import cpu

    # As if the processor's flags were misread, and the build did not check the result.
    misread = Int8Weights(8, "the flags were misread")
    with (
        patch.object(cpu, "int8_weights_here", return_value=misread),
        patch.object(cpu, "check_agreement"),
    ):
        _build(bundle, SATURATING_TARGET, "int8", store)
        return verify_bundle(
            bundle, SATURATING_TARGET, store, precision="int8", images=images, samples=SAMPLES
        )


if __name__ == "__main__":
    opened = Bundle.open(Path(sys.argv[1]))
    result = _verify_with_misread_flags(opened, Path(sys.argv[2]), EngineStore(Path(sys.argv[3])))
    sys.stdout.buffer.write(to_json(result))
