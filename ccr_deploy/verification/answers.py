"""Outputs of PyTorch, graphs and engines for the same images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.core.progress import SILENT, Progress
from ccr_deploy.verification.results import REFERENCE, Level, LogitStage, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage

    Precisions = tuple[EnginePrecision, EnginePrecision]
    """The precision of an encoder and that of a classifier."""
    Bytes = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

BATCH = 4
"""Images per batch. Larger batches use more memory without being faster at 224x224."""


@dataclass(frozen=True)
class Answers:
    """Outputs of the chain for N images, run in one way.

    `codes` are ``uint8 [N, bytes]``. `logits` are ``float32 [N, classes]``: "classifier" for the reference's
    codes, "chain" for its own encoder's codes, and "baseline" if the bundle has a baseline.
    """

    codes: Bytes
    logits: Mapping[LogitStage, Floats]


class Reference(ABC):
    """The answers of the checkpoint, image by image in the order of the image set.

    `runners` are opened before the first image and closed after the last.
    """

    runners: Collection[Runner] = ()

    @abstractmethod
    def answer(self, images: Bytes) -> tuple[Answers, Floats]:
        """Return the answers for the next images, and the margins of their bits.

        Args:
            images: ``uint8 [N, H, W, 3]``.

        Returns:
            The answers, and the margins ``float32 [N, code bits]``: pre-binarization activations over the
            standard deviation of their image's. The sign of a margin is the bit; its size says how far
            rounding must reach to flip it.
        """


@dataclass(frozen=True)
class BatchAnswers:
    """What the reference and the other ways returned for one batch.

    `images` are ``uint8 [N, H, W, 3]``, `margins` the reference's, ``float32 [N, code bits]``, `matrix` the
    logits ``float32 [N, classes]`` of every encoder precision with every classifier precision.
    """

    images: Bytes
    margins: Floats
    answers: Mapping[Way, Answers]
    matrix: Mapping[Precisions, Floats]


@dataclass(frozen=True)
class PrecisionRunners:
    """The runners of encoders and classifiers, by precision, that are run in every combination."""

    encoders: Mapping[EnginePrecision, Runner]
    classifiers: Mapping[EnginePrecision, Runner]

    @property
    def pairs(self) -> list[Precisions]:
        """Every precision of an encoder with every one of a classifier."""
        return list(product(self.encoders, self.classifiers))

    def logits(self, images: Bytes) -> dict[Precisions, Floats]:
        """Run every encoder with every classifier; return the logits ``float32 [N, classes]`` by pair."""
        codes = {precision: codes_of(encoder, images) for precision, encoder in self.encoders.items()}
        return {
            (encoder, classifier): logits_of(runner, "code", code)
            for encoder, code in codes.items()
            for classifier, runner in self.classifiers.items()
        }


NO_MATRIX = PrecisionRunners({}, {})


@contextmanager
def answering(
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    matrix: PrecisionRunners = NO_MATRIX,
) -> Iterator[Callable[[Bytes], BatchAnswers]]:
    """Open all runners; yield the function that runs a batch ``uint8 [N, H, W, 3]`` in every way.

    Args:
        reference: what the others are compared with.
        ways: the runners of each stage, by the way they run.
        matrix: the runners of each precision, which are run in every combination.
    """
    with ExitStack() as stack:
        for runners in (
            reference.runners,
            *(way.values() for way in ways.values()),
            matrix.encoders.values(),
            matrix.classifiers.values(),
        ):
            for runner in runners:
                stack.enter_context(runner)
        yield lambda images: answers_to(images, reference, ways, matrix)


def answers_to(
    images: Bytes,
    reference: Reference,
    ways: Mapping[Level, Mapping[Stage, Runner]],
    matrix: PrecisionRunners = NO_MATRIX,
) -> BatchAnswers:
    """Run one batch through the reference and in every other way.

    Args:
        images: ``uint8 [N, H, W, 3]``.
        reference: what the others are compared with.
        ways: the open runners of each stage, by the way they run.
        matrix: the open runners of each precision, which are run in every combination.
    """
    expected, margins = reference.answer(images)
    answers: dict[Way, Answers] = {REFERENCE: expected}
    answers |= {name: _answers(way, images, expected.codes) for name, way in ways.items()}
    return BatchAnswers(images, margins, answers, matrix.logits(images))


def collect(
    batches: Iterable[Bytes], reference: Reference, *, total: int, progress: Progress = SILENT
) -> tuple[Answers, Floats]:
    """Run images through the reference.

    Args:
        batches: images, each batch ``uint8 [N, H, W, 3]``.
        reference: runs them.
        total: number of images, for the progress.
        progress: advances by images.

    Returns:
        The outputs, and the margins ``float32 [N, code bits]``.
    """
    answers: list[Answers] = []
    margins: list[Floats] = []
    with progress.task("running PyTorch", total) as advance, answering(reference, {}) as answer:
        for images in batches:
            batch = answer(images)
            answers.append(batch.answers[REFERENCE])
            margins.append(batch.margins)
            advance(len(images))
    return _joined(answers), np.concatenate(margins)


def _answers(way: Mapping[Stage, Runner], images: Bytes, reference_codes: Bytes) -> Answers:
    codes = codes_of(way["encoder"], images)
    logits: dict[LogitStage, Floats] = {"classifier": logits_of(way["classifier"], "code", reference_codes)}
    same = np.array_equal(codes, reference_codes)
    logits["chain"] = logits["classifier"] if same else logits_of(way["classifier"], "code", codes)
    if "baseline" in way:
        logits["baseline"] = logits_of(way["baseline"], "image", images)
    return Answers(codes, logits)


def codes_of(runner: Runner, images: Bytes) -> Bytes:
    """Run an encoder on images ``uint8 [N, H, W, 3]``; return its codes ``uint8 [N, bytes]``."""
    return runner.infer({"image": images})["code"].astype(np.uint8, copy=False)


def logits_of(runner: Runner, name: str, array: Bytes) -> Floats:
    """Run a stage that returns logits.

    Args:
        runner: the stage.
        name: name of its input.
        array: the input, ``uint8 [N, ...]``.

    Returns:
        ``float32 [N, classes]``.
    """
    return runner.infer({name: array})["logits"].astype(np.float32, copy=False)


def _joined(parts: Sequence[Answers]) -> Answers:
    logits = {stage: np.concatenate([part.logits[stage] for part in parts]) for stage in parts[0].logits}
    return Answers(np.concatenate([part.codes for part in parts]), logits)
