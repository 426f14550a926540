"""Make the candidates of one T: export, calibrate, build the engines, and export plainly as a user would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, cast

import numpy as np
import torch
from msgspec.structs import replace

from benchmarks.peers.plain import plain_export
from benchmarks.peers.results import Engines, PeerCandidate, PlainFiles, PlainPlans
from ccr_deploy.backends.base import BuildSource
from ccr_deploy.backends.openvino.cpu import import_openvino
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.stages import NAIVE_SCHEDULE
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.export.exporter import export_bundle, resized
from ccr_deploy.models.chain import CcrChain, normalise
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.targets.schema import GPU_REFERENCE_TARGET, REFERENCE_TARGET, StageBatches
from ccr_deploy.workflow.calibrate import calibrate_bundle
from ccr_deploy.workflow.engines import built_precisions
from ccr_deploy.workflow.pytorch_variants import pytorch_variants

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.peers.results import Group
    from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import ChainStage, Schedule
    from ccr_deploy.models.checkpoint import Checkpoint

SUBJECTS: dict[Subject, tuple[ChainStage, ...]] = {
    "encoder": ("encoder",),
    "classifier": ("classifier",),
    "chain": ("encoder", "classifier"),
}
CALIBRATED_SCHEDULES: tuple[Schedule, ...] = ("iteration-major", "layer-major")
"""The schedules in every precision; `plain`, which exists for comparison, only in FP32."""
COMPILED = "torch.compile"


@dataclass(frozen=True)
class Request:
    """What to prepare: a preset at one T, for the largest of some batch sizes; `folder` has ``images``."""

    preset: str
    iterations: int
    batches: tuple[int, ...]
    targets: tuple[str, ...]
    folder: Path
    calibration_images: int

    @property
    def own_folder(self) -> Path:
        """The folder of this T's files."""
        return self.folder / f"t{self.iterations}"


@dataclass
class Prepared:
    """The candidates of one T, and the error messages of those that could not be built.

    `codes` is the file of packed codes, the input of classifiers, and `plain_codes` that of the same codes as
    the network returns them.
    """

    iterations: int
    images: Path
    codes: Path
    plain_codes: Path
    candidates: dict[Subject, list[PeerCandidate]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def inputs(self, subject: Subject, candidate: PeerCandidate) -> Path:
        """Return the file with a candidate's inputs."""
        if subject != "classifier":
            return self.images
        return self.codes if isinstance(candidate.program, Engines) else self.plain_codes

    def add(self, subject: Subject, name: str, make: Callable[[], PeerCandidate]) -> None:
        """Add a candidate, or the reason why it cannot be built."""
        try:
            self.candidates.setdefault(subject, []).append(make())
        except CcrDeployError as error:
            self.left_out.append(f"{subject}, T={self.iterations}, {name}: {error}")


def prepare(request: Request) -> Prepared:
    """Make all candidates of one T."""
    checkpoint = resized(untrained_checkpoint(preset(request.preset)), request.iterations, None)
    folder = request.own_folder
    bundle = export_bundle(
        checkpoint,
        folder / "bundle",
        schedules=CALIBRATED_SCHEDULES,
        images=request.folder / "images",
        converters=CONVERTERS,
    )
    recipe = CalibrationRecipe(samples=request.calibration_images, held_out_samples=1)
    bundle = calibrate_bundle(bundle, request.folder / "images", recipe).bundle
    naive = export_bundle(checkpoint, folder / "naive", schedules=(NAIVE_SCHEDULE,))
    prepared = Prepared(
        request.iterations, folder / "images.npy", folder / "codes.npy", folder / "plain-codes.npy"
    )
    _write_inputs(request, checkpoint, prepared)
    files = {
        stage: {
            batch: plain_export(checkpoint, stage, batch, folder / f"{stage}-{batch}.onnx")
            for batch in request.batches
        }
        for stage in SUBJECTS["chain"]
    }
    store = EngineStore(request.folder / "engines")
    factories = [_factory(bundle, target, store, request.batches) for target in request.targets]
    on_gpu = factories[0].target.uses_gpu
    for subject, stages in SUBJECTS.items():
        _add_pytorch(prepared, subject, bundle, store, on_gpu=on_gpu)
        plain = {batch: tuple(files[stage][batch] for stage in stages) for batch in request.batches}
        if on_gpu:
            _add_plain_plans(prepared, subject, factories[0], plain, folder)
        else:
            _add_plain_files(prepared, subject, plain)
        for factory in factories:
            _add_own(prepared, subject, factory)
    for factory in (_factory(naive, target, store, request.batches) for target in request.targets):
        add_engines(prepared, "encoder", factory, "fp32", NAIVE_SCHEDULE)
    return prepared


def _factory(bundle: Bundle, target: str, store: EngineStore, batches: tuple[int, ...]) -> EngineFactory:
    """Return the factory of a target, whose engines are built for exactly these batch sizes."""
    factory = EngineFactory(bundle, target, store)
    if factory.target.batch:
        sizes = StageBatches(encoder=batches, classifier=batches)
        factory.target = replace(factory.target, batch=sizes)
    return factory


def _write_inputs(request: Request, checkpoint: Checkpoint, prepared: Prepared) -> None:
    """Write images, and the codes that the network computes from them."""
    from ccr_deploy.data.images import load_images

    config = checkpoint.config
    files = sorted((request.folder / "images").glob("*.png"))[: max(request.batches)]
    unchanged = replace(checkpoint.preprocessing, resize_to_cover=(config.image_height, config.image_width))
    images = load_images(files, unchanged, config.image_height, config.image_width)
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(images), checkpoint.preprocessing)
        codes = chain.encoder(pixels, config.iterations).numpy()
    np.save(prepared.images, images)
    np.save(prepared.codes, pack_code(codes))
    np.save(prepared.plain_codes, codes)


def _add_pytorch(
    prepared: Prepared, subject: Subject, bundle: Bundle, store: EngineStore, *, on_gpu: bool
) -> None:
    reference = EngineFactory(bundle, GPU_REFERENCE_TARGET if on_gpu else REFERENCE_TARGET, store)
    variants = pytorch_variants(SUBJECTS[subject], on_gpu=on_gpu)
    if not on_gpu:
        variants[COMPILED] = PyTorchOptions(compile_mode="default")
    engines = tuple(
        (reference.build(stage)[0].path, reference.precision(stage)) for stage in SUBJECTS[subject]
    )
    for name, options in variants.items():
        precision: EnginePrecision = "fp16" if options.fp16_cuda_graph else "fp32"
        found = PeerCandidate(name, "PyTorch", precision, None, Engines(options, engines))
        prepared.candidates.setdefault(subject, []).append(found)


def _add_plain_files(prepared: Prepared, subject: Subject, files: dict[int, tuple[Path, ...]]) -> None:
    """Add the libraries with their defaults; OpenVINO's may be BF16, to which FP32 is added."""
    group: Group = "plain export"
    default = openvino_default()
    candidates = [
        PeerCandidate(f"{group}, ONNX Runtime", group, "fp32", None, PlainFiles("onnxruntime", files)),
        PeerCandidate(f"{group}, OpenVINO", group, default, None, PlainFiles("openvino", files)),
    ]
    if default != "fp32":
        program = PlainFiles("openvino", files, "f32")
        candidates.append(PeerCandidate(f"{group}, OpenVINO FP32", group, "fp32", None, program))
    prepared.candidates[subject] += candidates


def openvino_default() -> EnginePrecision:
    """Return the precision that OpenVINO computes FP32 graphs in on this machine by default."""
    name = import_openvino().Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    precisions: dict[str, EnginePrecision] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
    return precisions[name]


def _add_plain_plans(
    prepared: Prepared,
    subject: Subject,
    factory: EngineFactory,
    files: dict[int, tuple[Path, ...]],
    folder: Path,
) -> None:
    """Add TensorRT with the plain files and TF32, its default for FP32 graphs."""
    name = f"plain export, {factory.backend.title}"
    backend = type(factory.backend)(
        replace(cast("TensorRtOptions | RtxOptions", factory.target.options), tf32=True)
    )

    def built(graph: Path, batch: int, stage: ChainStage) -> Path:
        plan = folder / f"{graph.stem}{backend.suffix}"
        if plan.exists():
            return plan
        spec = np.load(prepared.images if stage == "encoder" else prepared.plain_codes, mmap_mode="r")
        source = BuildSource(
            stage=stage,
            precision="fp32",
            schedule=None,
            batch=Batch((batch,)),
            graph=graph,
            input_shapes={"image" if stage == "encoder" else "code": spec.shape[1:]},
            samples=dict,
            graph_in=lambda _: graph,
            weights=_no_weights,
            other_schedules=(),
            caches=folder,
        )
        backend.build(source, plan)
        return plan

    def make() -> PeerCandidate:
        plans = {
            batch: tuple(
                built(graph, batch, stage) for graph, stage in zip(graphs, SUBJECTS[subject], strict=True)
            )
            for batch, graphs in files.items()
        }
        program = PlainPlans(backend.options, backend.version, plans)
        return PeerCandidate(name, "plain export", "fp32", None, program)

    prepared.add(subject, name, make)


def _no_weights() -> NoReturn:
    raise NotImplementedError("a graph has its weights")


def _add_own(prepared: Prepared, subject: Subject, factory: EngineFactory) -> None:
    """Add the engines of a target in each precision; an encoder in each schedule too."""
    for precision in built_precisions(factory.bundle, factory):
        for schedule in CALIBRATED_SCHEDULES if subject == "encoder" else (factory.target.schedule,):
            add_engines(prepared, subject, factory, precision, schedule)


def add_engines(
    prepared: Prepared,
    subject: Subject,
    factory: EngineFactory,
    precision: EnginePrecision,
    schedule: Schedule,
) -> None:
    """Add the engines of a target in one precision and schedule.

    Args:
        prepared: what to add to.
        subject: the stage, or the chain.
        factory: the factory of the target's engines.
        precision: the precision.
        schedule: the unroll schedule of the encoder.
    """
    target = factory.target
    has_order = "encoder" in SUBJECTS[subject]
    name = f"ours, {target.backend} {precision}{f' {schedule}' if has_order else ''}"

    def make() -> PeerCandidate:
        own = EngineFactory(factory.bundle, factory.target_name, factory.store, stage_precisions(precision))
        own.target = target
        engines = tuple(
            (own.build(stage, schedule if stage == "encoder" else None)[0].path, precision)
            for stage in SUBJECTS[subject]
        )
        program = Engines(target.options, engines)
        return PeerCandidate(name, "ours", precision, schedule if has_order else None, program)

    prepared.add(subject, name, make)
