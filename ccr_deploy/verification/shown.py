"""The images that a report shows: a few samples, and the first whose class changed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.core.metrics import flipped_bits, softmax
from ccr_deploy.data.images import jpeg_bytes
from ccr_deploy.verification.measures import NO_ANSWER, top1_classes
from ccr_deploy.verification.results import REFERENCE, ChangedAnswer, SampleAnswer

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.verification.answers import BatchAnswers
    from ccr_deploy.verification.image_set import ImageSet

SHOWN_SAMPLES = 12
SHOWN_CHANGES = 24
THUMBNAIL_PIXELS = 96
"""The longer side of an image in the report, which contains the images themselves."""


@dataclass(frozen=True)
class ShownBatch:
    """What a report shows of some images."""

    samples: tuple[SampleAnswer, ...]
    changed_answers: tuple[ChangedAnswer, ...]

    def joined(self, other: ShownBatch) -> ShownBatch:
        """Return this and what the images after these show; at most `SHOWN_CHANGES` changed answers."""
        changes = (*self.changed_answers, *other.changed_answers)
        return ShownBatch((*self.samples, *other.samples), changes[:SHOWN_CHANGES])


class ShownImages:
    """Chooses `SHOWN_SAMPLES` evenly spaced images, and images whose class changed.

    Args:
        manifest: the bundle's, for the names of classes and the contract.
        images: the image set.
    """

    def __init__(self, manifest: Manifest, images: ImageSet) -> None:
        self._manifest = manifest
        self._images = images
        self._sampled = set(np.linspace(0, len(images.names) - 1, SHOWN_SAMPLES).round().astype(int).tolist())

    def of(self, first: int, batch: BatchAnswers, most_changes: int) -> ShownBatch:
        """Return what is to be shown of a batch.

        Args:
            first: position of its first image.
            batch: its images and answers.
            most_changes: how many images whose class changed to show.
        """
        reference, engine = batch.answers[REFERENCE], batch.answers["engine"]
        changed = top1_classes(reference.logits["chain"]) != top1_classes(engine.logits["chain"])
        changed |= top1_classes(engine.logits["chain"]) == NO_ANSWER
        rows = np.flatnonzero(changed)[:most_changes].tolist()
        return ShownBatch(
            samples=tuple(
                self._sample(first + row, row, batch)
                for row in range(len(batch.images))
                if first + row in self._sampled
            ),
            changed_answers=tuple(self._changed(first + row, row, batch) for row in rows),
        )

    def _changed(self, position: int, row: int, batch: BatchAnswers) -> ChangedAnswer:
        reference, engine = batch.answers[REFERENCE], batch.answers["engine"]
        flips = flipped_bits(reference.codes[row : row + 1], engine.codes[row : row + 1])
        expected, expected_probability = self._answer(reference.logits["chain"][row])
        found, probability = self._answer(engine.logits["chain"][row])
        return ChangedAnswer(
            name=self._images.names[position],
            thumbnail_png_base64=_thumbnail(batch.images[row]),
            label=self._class_name(self._images.labels[position]),
            reference=expected,
            reference_probability=expected_probability,
            answer=found,
            probability=probability,
            flipped_bits=int(flips.sum()),
        )

    def _sample(self, position: int, row: int, batch: BatchAnswers) -> SampleAnswer:
        engine = batch.answers["engine"]
        answer, probability = self._answer(engine.logits["chain"][row])
        return SampleAnswer(
            name=self._images.names[position],
            thumbnail_png_base64=_thumbnail(batch.images[row]),
            label=self._class_name(self._images.labels[position]),
            answer=answer or "NaN or infinity",
            probability=probability,
            payload_bytes=len(encode_payload(engine.codes[row], self._manifest.contract)),
            jpeg_bytes=jpeg_bytes(batch.images[row]),
        )

    def _answer(self, logits: npt.NDArray[np.float32]) -> tuple[str | None, float]:
        """Return the name of the most probable class, None if logits are not finite, and its probability."""
        (top1,) = top1_classes(logits[None])
        if top1 == NO_ANSWER:
            return None, 0.0
        return self._class_name(int(top1)), float(softmax(logits[None]).max())

    def _class_name(self, number: int | None) -> str | None:
        return None if number is None else self._manifest.class_name(number)


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
