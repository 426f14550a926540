"""The same images through PyTorch, graph and engine: what each answered."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner

    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

BATCH = 32


@dataclass(frozen=True)
class StageRunners:
    """One way to run the chain; only some bundles have a baseline."""

    encoder: Runner
    classifier: Runner
    baseline: Runner | None = None


@dataclass(frozen=True)
class Answers:
    """What one way to run the chain answered for N images.

    `logits` are those of the reference's codes, `chain_logits` those of its own: ``[N, classes]``.
    """

    codes: Bytes
    logits: Floats
    chain_logits: Floats
    baseline_logits: Floats | None


def collect(
    batches: Iterable[Bytes],
    runners: Mapping[str, StageRunners],
    pre_binarization: Callable[[Bytes], Floats],
    *,
    total: int,
    progress: Progress = SILENT,
) -> tuple[dict[str, Answers], Floats]:
    """Runs images ``uint8 [N, H, W, 3]``, batch by batch, through every way; the first is the reference.

    Returns the answers by way, and the reference's pre-binarization activations ``[N, 8 * bytes]``.
    """
    parts: dict[str, list[Answers]] = {name: [] for name in runners}
    values: list[Floats] = []
    reference = next(iter(runners.values()))
    with ExitStack() as stack, progress.task("verifying", total) as advance:
        for way in runners.values():
            for runner in (way.encoder, way.classifier, way.baseline):
                if runner is not None:
                    stack.enter_context(runner)
        for images in batches:
            # The reference's slow encoder runs once: its codes are the signs of these values.
            values.append(pre_binarization(images).reshape(len(images), -1))
            reference_codes = pack_code(values[-1])
            for name, way in runners.items():
                codes = reference_codes if way is reference else _codes(way.encoder, images)
                parts[name].append(_answers(way, images, codes, reference_codes))
            advance(len(images))
    return {name: _joined(answers) for name, answers in parts.items()}, np.concatenate(values)


def _answers(way: StageRunners, images: Bytes, codes: Bytes, reference_codes: Bytes) -> Answers:
    logits = _logits(way.classifier, "code", reference_codes)
    same = np.array_equal(codes, reference_codes)
    return Answers(
        codes=codes,
        logits=logits,
        chain_logits=logits if same else _logits(way.classifier, "code", codes),
        baseline_logits=_logits(way.baseline, "image", images) if way.baseline else None,
    )


def _codes(runner: Runner, images: Bytes) -> Bytes:
    return runner.infer({"image": images})["code"].astype(np.uint8, copy=False)


def _logits(runner: Runner, name: str, array: Bytes) -> Floats:
    return runner.infer({name: array})["logits"].astype(np.float32, copy=False)


def _joined(parts: Sequence[Answers]) -> Answers:
    baseline = [part.baseline_logits for part in parts if part.baseline_logits is not None]
    return Answers(
        codes=np.concatenate([part.codes for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        chain_logits=np.concatenate([part.chain_logits for part in parts]),
        baseline_logits=np.concatenate(baseline) if baseline else None,
    )
