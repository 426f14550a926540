"""The inputs of a benchmark: sample images of the bundle, with the answers that `verify` compares with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.answers import Expected
from ccr_deploy.verification.answer_cache import AnswerCache
from ccr_deploy.verification.answers import BATCH
from ccr_deploy.verification.gates import GateLimits
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.reference import pytorch_reference

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore

MAX_IMAGES = 2 * BATCH
"""Images of a benchmark. Whole batches of `verify`, whose answers are in the engine store."""


@dataclass(frozen=True)
class TimedInputs:
    """Images with the outputs of the PyTorch reference for them, by stage.

    The classifier's inputs are the reference's codes, as in `verify`.
    """

    images: npt.NDArray[np.uint8]
    outputs: Mapping[Stage, npt.NDArray[np.generic]]

    def items(self, subject: Subject) -> npt.NDArray[np.uint8]:
        """Return what the inputs of a subject are made from: images, or packed codes."""
        return self.outputs["encoder"].astype(np.uint8) if subject == "classifier" else self.images

    def expected(
        self, stages: Sequence[Stage], precisions: Collection[EnginePrecision], bundle: Bundle
    ) -> Expected:
        """Return the reference's outputs of stages, with the limits of the gates of some precisions.

        Args:
            stages: stages that run one after the other.
            precisions: precisions of their engines; the gates of the lowest one apply.
            bundle: bundle of the engines.
        """
        return expected_answers([self.outputs[stage] for stage in stages], precisions, bundle)


def expected_answers(
    outputs: Sequence[npt.NDArray[np.generic]] | None,
    precisions: Collection[EnginePrecision],
    bundle: Bundle,
) -> Expected:
    """Return what answers are compared with, and the limits of the gates of some precisions.

    Args:
        outputs: the reference's outputs for all items, of each engine in sequence; None without a reference.
        precisions: precisions of the engines; the gates of the lowest one apply.
        bundle: bundle of the engines.
    """
    limits = GateLimits.of(precisions, bundle).by_name
    return Expected(
        None if outputs is None else tuple(outputs),
        limits.get("max-flipped-percent"),
        limits.get("min-cosine"),
    )


def timed_inputs(bundle: Bundle, store: EngineStore) -> TimedInputs:
    """Return the first sample images of a bundle with the answers of its checkpoint in PyTorch, on the CPU.

    Args:
        bundle: the bundle.
        store: engine store, whose cache has the answers of earlier commands.

    Raises:
        BundleError: if the bundle is damaged.
        MissingExtraError: if PyTorch is not installed.
    """
    reference = pytorch_reference(bundle, AnswerCache(store.path), store)
    batches = list(islice(image_set(bundle, None).batches, MAX_IMAGES // BATCH))
    found = [reference.answer(batch)[0] for batch in batches]
    outputs: dict[Stage, npt.NDArray[np.generic]] = {
        "encoder": np.concatenate([answers.codes for answers in found]),
        "classifier": np.concatenate([answers.logits["classifier"] for answers in found]),
    }
    if bundle.manifest.baseline:
        outputs["baseline"] = np.concatenate([answers.logits["baseline"] for answers in found])
    return TimedInputs(np.concatenate(batches), outputs)
