"""The images that a report shows: a few samples, and the first whose class changed."""

from __future__ import annotations

import base64
import io
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


class ShownImages:
    """Keeps `SHOWN_SAMPLES` evenly spaced images, and the first `SHOWN_CHANGES` whose class changed.

    Args:
        manifest: the bundle's, for the names of classes and the contract.
        images: the image set.
    """

    def __init__(self, manifest: Manifest, images: ImageSet) -> None:
        self.samples: list[SampleAnswer] = []
        self.changed_answers: list[ChangedAnswer] = []
        self._manifest = manifest
        self._images = images
        self._sampled = set(np.linspace(0, len(images.names) - 1, SHOWN_SAMPLES).round().astype(int).tolist())

    def add(self, first: int, batch: BatchAnswers) -> None:
        """Keep what is to be shown of the next batch; `first` is the position of its first image."""
        reference, engine = batch.answers[REFERENCE], batch.answers["engine"]
        changed = top1_classes(reference.logits["chain"]) != top1_classes(engine.logits["chain"])
        changed |= top1_classes(engine.logits["chain"]) == NO_ANSWER
        for row, pixels in enumerate(batch.images):
            if first + row in self._sampled:
                self.samples.append(self._sample(first + row, row, batch))
            if changed[row] and len(self.changed_answers) < SHOWN_CHANGES:
                flips = flipped_bits(reference.codes[row : row + 1], engine.codes[row : row + 1])
                expected, expected_probability = self._answer(reference.logits["chain"][row])
                found, probability = self._answer(engine.logits["chain"][row])
                self.changed_answers.append(
                    ChangedAnswer(
                        name=self._images.names[first + row],
                        thumbnail_png_base64=_thumbnail(pixels),
                        label=self._class_name(self._images.labels[first + row]),
                        reference=expected,
                        reference_probability=expected_probability,
                        answer=found,
                        probability=probability,
                        flipped_bits=int(flips.sum()),
                    )
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
