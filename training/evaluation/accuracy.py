"""Accuracy, payload, compute cost and latency of a checkpoint, for each T that it is to run with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from msgspec import structs
from torch.utils.data import DataLoader

from ccr_deploy import CREATED_BY
from ccr_deploy.codec.payload import OVERHEAD_BYTES
from ccr_deploy.core.metrics import Interval, grouped_bootstrap_interval, top_k_hits
from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.export.description import describe_model
from ccr_deploy.models.binarizer import sign
from ccr_deploy.models.chain import CcrChain, normalise, residual_loop
from ccr_deploy.models.checkpoint import build_model, weights_digest
from training.evaluation.latency import measure_latencies
from training.evaluation.results import Evaluation, IterationAccuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from ccr_deploy.core.progress import Progress
    from ccr_deploy.models.chain import BaselineChain
    from ccr_deploy.models.checkpoint import Checkpoint
    from ccr_deploy.models.config import ModelConfig
    from training.data.open import TestImages
    from training.evaluation.latency import Latencies


@dataclass(frozen=True)
class Answers:
    """What a checkpoint answers: ``bool [images]`` by T, true where the class is among the best 1 or 5."""

    top1: dict[int, npt.NDArray[np.bool_]]
    top5: dict[int, npt.NDArray[np.bool_]]
    images_sha256: str


def evaluate(
    checkpoint: Checkpoint,
    images: TestImages,
    iterations: Sequence[int] = (),
    *,
    batch: int = 256,
    workers: int = 0,
    rounds: int = 0,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure a checkpoint with each T on test images.

    The interval of an accuracy resamples whole groups, since images of one group are correlated. A
    checkpoint runs with any T, but its accuracy is much lower with one that it was not trained with.

    Args:
        checkpoint: the checkpoint of a CCR chain or a baseline.
        images: the test images.
        iterations: every T to run with; empty for those that it was trained with.
        batch: number of images that are computed together.
        workers: number of processes that load images; 0 to load them in this one.
        rounds: number of rounds that time each T once; 0 to leave out the latencies.
        device: PyTorch's name of the device to compute on.
        progress: advances by one for each image.

    Raises:
        WrongUsageError: if there are no images.
        ImageError: if an image cannot be used.
    """
    if not images.groups:
        raise WrongUsageError(f"{images.name}: has no images to evaluate with")
    wanted = tuple(
        sorted(set(iterations) or set(checkpoint.trained_iterations) or {checkpoint.config.iterations})
    )
    model = build_model(checkpoint).to(device)
    loader = DataLoader(images.dataset, batch_size=batch, num_workers=workers)
    with progress.task("evaluating", len(images.groups)) as advance:
        answers = _answers(_batches(loader, advance), model, checkpoint, wanted)
    latencies = measure_latencies(model, checkpoint.preprocessing, wanted, rounds) if rounds else None
    return Evaluation(
        created_by=CREATED_BY,
        weights_sha256=weights_digest(checkpoint.state_dict),
        config=checkpoint.config,
        trained_iterations=checkpoint.trained_iterations,
        parameters=describe_model("", checkpoint.config).parameters,
        data=images.name,
        images=len(images.groups),
        images_sha256=answers.images_sha256,
        image_groups=tuple(np.unique(np.array(images.groups), return_inverse=True)[1].tolist()),
        per_iteration=tuple(
            _entry(checkpoint, number, answers, images.groups, latencies) for number in wanted
        ),
        latency=latencies.conditions if latencies else None,
    )


def logits_at(model: CcrChain | BaselineChain, image: Tensor, iterations: Sequence[int]) -> dict[int, Tensor]:
    """Return the logits ``[N, classes]`` by T; the iterations run once, as many as the largest T.

    Args:
        model: the chain, in evaluation mode.
        image: normalised images ``float32 [N, 3, H, W]``.
        iterations: every T that logits are wanted for.
    """
    last = max(iterations)
    if isinstance(model, CcrChain):
        activations = enumerate(model.encoder.each_pre_binarization(image, last), start=1)
        return {t: model.classifier(sign(each)) for t, each in activations if t in iterations}
    residuals = residual_loop(model.encoder, model.decoder, image, last)
    return {t: model.classifier((image - residuals[t - 1]) * model.std + model.mean) for t in iterations}


def payload_bytes(config: ModelConfig, iterations: int) -> int:
    """Return the size of one payload; a baseline sends the code of every iteration."""
    codes = iterations if config.is_baseline else 1
    return OVERHEAD_BYTES + codes * config.code_bytes


def _answers(
    batches: Iterator[tuple[Tensor, Tensor]],
    model: CcrChain | BaselineChain,
    checkpoint: Checkpoint,
    iterations: Sequence[int],
) -> Answers:
    digest = hashlib.sha256()
    hits: dict[tuple[int, int], list[npt.NDArray[np.bool_]]] = {}
    device = next(model.parameters()).device
    for images, labels in batches:
        for image, label in zip(images.numpy(), labels.numpy().astype("<i8"), strict=True):
            digest.update(image.tobytes() + label.tobytes())  # one by one: the same for any batch
        with torch.inference_mode():
            logits = logits_at(model, normalise(images.to(device), checkpoint.preprocessing), iterations)
        for number, values in logits.items():
            for k in (1, 5):
                found = top_k_hits(values.float().cpu().numpy(), labels.numpy(), k)
                hits.setdefault((number, k), []).append(found)
    joined = {key: np.concatenate(parts) for key, parts in hits.items()}
    top1, top5 = ({t: joined[t, k] for t in iterations} for k in (1, 5))
    return Answers(top1, top5, digest.hexdigest())


def _batches(
    loader: DataLoader[tuple[Tensor, int]], advance: Callable[[int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in loader:
        yield images, labels
        advance(len(labels))


def _entry(
    checkpoint: Checkpoint,
    iterations: int,
    answers: Answers,
    groups: Sequence[str],
    latencies: Latencies | None,
) -> IterationAccuracy:
    hits = answers.top1[iterations]
    interval = grouped_bootstrap_interval(hits, groups)
    described = describe_model("", structs.replace(checkpoint.config, iterations=iterations))
    return IterationAccuracy(
        iterations=iterations,
        is_trained=iterations in checkpoint.trained_iterations,
        top1_percent=100 * float(hits.mean()),
        top1_interval_percent=Interval(100 * interval.low, 100 * interval.high),
        top5_percent=100 * float(answers.top5[iterations].mean()),
        payload_bytes=payload_bytes(checkpoint.config, iterations),
        encoder_macs=described.encoder_macs,
        classifier_macs=described.classifier_macs,
        latency_ms_p50=latencies.medians_ms[iterations] if latencies else None,
        latency_ms_p50_interval=latencies.intervals_ms[iterations] if latencies else None,
        top1_hits=tuple(hits.astype(int).tolist()),
    )
