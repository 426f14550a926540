"""Export a checkpoint to a bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from msgspec import structs
from PIL import Image
from safetensors.torch import save

from ccr_deploy import CREATED_BY
from ccr_deploy.bundle.graph_files import add_graph
from ccr_deploy.bundle.manifest import (
    SCHEMA_VERSION,
    BaselineRecord,
    FileRecord,
    GraphRecord,
    Manifest,
    SampleRecord,
)
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.bundle.writer import BundleWriter, writing_bundle
from ccr_deploy.codec.contract import CodeContract
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.progress import SILENT, Progress
from ccr_deploy.core.records import convert, to_builtins
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.export.samples import folder_samples, pattern_samples
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.export.uint8_io import EncoderGraph
from ccr_deploy.export.unroll import unroll
from ccr_deploy.models.chain import BaselineChain, CcrChain
from ccr_deploy.models.checkpoint import Checkpoint, build_model, encoder_digest
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.iterations import untrained_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir
    from torch import Tensor

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import ChainStage, Schedule

    Converter = Callable[[onnx_ir.Model, Arrays], onnx_ir.Model]


def export_bundle(
    checkpoint: Checkpoint,
    path: Path,
    *,
    schedules: Sequence[Schedule],
    baseline: Checkpoint | None = None,
    images: Path | None = None,
    converters: Mapping[Precision, Converter] | None = None,
    untrained_iterations: bool = False,
    progress: Progress = SILENT,
) -> Bundle:
    """Write a bundle: an encoder graph per schedule, the classifier, weights, sample images and manifest.

    Args:
        checkpoint: a CCR checkpoint.
        path: the folder of the bundle; an existing bundle is replaced.
        schedules: the unroll schedules to export.
        baseline: a checkpoint of the conventional chain, to add its graph for comparisons.
        images: a folder to take the sample images from; None for synthetic patterns.
        converters: the converters to other precisions, which run the graphs of encoder and classifier on the
            samples; None for a bundle with only FP32 graphs.
        untrained_iterations: allow a T that was not trained. The bundle records the trained ones.
        progress: shows the progress.

    Raises:
        WrongUsageError: if a checkpoint is of the other kind or was trained with another T, or `path` is not
            a bundle.
        BundleError: if the bundle cannot be written.
        ImageError: if `images` has no images, or one cannot be used.
    """
    chain = build_model(checkpoint)
    if not isinstance(chain, CcrChain):
        raise WrongUsageError(
            "this checkpoint is a conventional chain, which does not classify codes: "
            "give it with --baseline, and a CCR checkpoint with --checkpoint"
        )
    conventional = _conventional_chain(baseline, checkpoint) if baseline else None
    config, preprocessing = checkpoint.config, checkpoint.preprocessing
    if not untrained_iterations:
        _check_trained("checkpoint", config.iterations, checkpoint.trained_iterations)
        if baseline:
            _check_trained("baseline", config.iterations, baseline.trained_iterations)
    samples = folder_samples(images, checkpoint) if images else pattern_samples(config)
    contract = CodeContract(
        image_height=config.image_height,
        image_width=config.image_width,
        preprocessing=preprocessing,
        iterations=config.iterations,
        code_channels=config.encoder.code_channels,
        encoder_digest=encoder_digest(checkpoint.state_dict),
    )
    # Also the inputs on which AutoCast checks the range of values for FP16.
    sample_feed = np.stack([pixels for pixels, _ in samples])

    with (
        writing_bundle(path) as writer,
        progress.task("exporting", len(schedules) + 1 + (conventional is not None)) as advance,
    ):
        graphs: list[GraphRecord] = []

        def _add(stage: ChainStage, schedule: Schedule | None, model: onnx_ir.Model, feeds: Arrays) -> None:
            graphs.append(add_graph(writer, model, stage, "fp32", schedule))
            for precision, convert in (converters or {}).items():
                graphs.append(add_graph(writer, convert(model, feeds), stage, precision, schedule))
            advance(1)

        for schedule in schedules:
            model = stage_graph(chain.encoder, config, preprocessing, schedule)
            _add("encoder", schedule, model, {"image": sample_feed})
        module = EncoderGraph(unroll(chain.encoder, config.iterations, schedules[-1]), preprocessing)
        model = stage_graph(chain.classifier, config, preprocessing, None)
        _add("classifier", None, model, {"code": _sample_codes(module, sample_feed)})
        baseline_record = None
        if baseline is not None and conventional is not None:
            model = stage_graph(conventional, conventional.config, preprocessing, None)
            graphs.append(add_graph(writer, model, "baseline", "fp32", None))
            weights = _add_weights(writer, "baseline", conventional.state_dict())
            baseline_record = BaselineRecord(
                model=conventional.config, trained_iterations=baseline.trained_iterations, weights=weights
            )
            advance(1)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            created_by=CREATED_BY,
            model=config,
            trained_iterations=checkpoint.trained_iterations,
            class_names=checkpoint.class_names,
            metrics=dict(checkpoint.metrics),
            contract=contract,
            contract_id=contract.contract_id,
            weights=_add_weights(writer, "weights", checkpoint.state_dict),
            graphs=tuple(graphs),
            samples=tuple(
                SampleRecord(file=writer.add("sample", ".png", _png_writer(pixels)), label=label)
                for pixels, label in samples
            ),
            baseline=baseline_record,
            calibration=None,
        )
        writer.commit(manifest)
    return Bundle(path, manifest)


def resized(checkpoint: Checkpoint, iterations: int | None, image_size: tuple[int, int] | None) -> Checkpoint:
    """Return the checkpoint with another number of iterations or image size, and the same weights.

    The record of trained iterations does not change. The ratio of the resized image, before the crop, to the
    image size stays the same.

    Args:
        checkpoint: the checkpoint.
        iterations: T; None to keep the checkpoint's.
        image_size: height and width in pixels; None to keep the checkpoint's.

    Raises:
        WrongUsageError: if the number of iterations or the image size is not valid.
    """
    config, preprocessing = checkpoint.config, checkpoint.preprocessing
    height, width = image_size or (config.image_height, config.image_width)
    try:
        config = convert(
            ModelConfig,
            {
                **to_builtins(config),
                "iterations": config.iterations if iterations is None else iterations,
                "image_height": height,
                "image_width": width,
            },
        )
    except FieldError as error:
        raise WrongUsageError(str(error)) from error
    if image_size is not None:
        rows, columns = preprocessing.resize_to_cover
        old = checkpoint.config
        cover = round(height * rows / old.image_height), round(width * columns / old.image_width)
        preprocessing = structs.replace(preprocessing, resize_to_cover=cover)
    return replace(checkpoint, config=config, preprocessing=preprocessing)


def _check_trained(network: str, iterations: int, trained: tuple[int, ...]) -> None:
    """Raise a WrongUsageError if a T was not trained; untrained weights accept any T."""
    warning = untrained_warning(network, iterations, trained)
    if warning and trained:
        raise WrongUsageError(
            f"{warning}: give --iterations one of those, or add --untrained-iterations; "
            "for a bare state dict, list the trained ones with --trained-iterations"
        )


def _conventional_chain(baseline: Checkpoint, checkpoint: Checkpoint) -> BaselineChain:
    """Build the baseline's network with the CCR checkpoint's iterations, image size and normalisation."""
    if not baseline.config.is_baseline:
        raise WrongUsageError(
            "the checkpoint given with --baseline has no decoder: give one of a conventional chain (encoder, "
            "decoder and a whole ResNet-18)"
        )
    size = checkpoint.config.image_height, checkpoint.config.image_width
    matching = resized(baseline, checkpoint.config.iterations, size)
    chain = build_model(replace(matching, preprocessing=checkpoint.preprocessing))
    assert isinstance(chain, BaselineChain)
    return chain


def _sample_codes(encoder: EncoderGraph, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    with torch.inference_mode():
        codes = encoder(torch.from_numpy(images)).numpy()
    return codes.astype(np.uint8, copy=False)


def _add_weights(writer: BundleWriter, stem: str, tensors: Mapping[str, Tensor]) -> FileRecord:
    # Cloned, because safetensors rejects tensors that share memory.
    separate = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    # Not with safetensors' `save_file`, which does not raise an OSError if the disk is full.
    return writer.add(stem, ".safetensors", lambda path: path.write_bytes(save(separate)))


def _png_writer(pixels: npt.NDArray[np.uint8]) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, format="PNG")
