"""The reference that engines are compared with: PyTorch on this machine, or a golden file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.backends.runner import Arrays, Outputs, Runner
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.verification.answers import Answers, Reference, logits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from ccr_deploy.core.stages import Stage
    from ccr_deploy.verification.answers import Bytes, Floats
    from ccr_deploy.verification.golden import Golden
    from ccr_deploy.verification.results import LogitStage


class MarginRunner(Runner):
    """The checkpoint's encoder: it returns the margins of its bits (`as_margins`) beside the codes.

    Args:
        encoder: the encoder, for its inputs.
        pre_binarization: images to pre-binarization activations ``float32 [N, C, h, w]``.
    """

    def __init__(self, encoder: Runner, pre_binarization: Callable[[Bytes], Floats]) -> None:
        self.inputs = encoder.inputs
        self._encoder = encoder
        self._pre_binarization = pre_binarization

    def _run(self, feeds: Arrays) -> Outputs:
        images = feeds["image"].astype(np.uint8, copy=False)
        # The encoder is slow, so it runs only once: its codes are the signs of these activations.
        activations = self._pre_binarization(images).reshape(len(images), -1)
        return {"code": pack_code(activations), "margins": as_margins(activations)}

    def _close(self) -> None:
        self._encoder.close()


class PyTorchReference(Reference):
    """The checkpoint, run by PyTorch.

    Args:
        networks: the runner of each stage; the encoder's returns margins too, as `MarginRunner` does.
    """

    def __init__(self, networks: Mapping[Stage, Runner]) -> None:
        self.runners = networks.values()
        self._networks = networks

    def answer(self, images: Bytes) -> tuple[Answers, Floats]:
        """Run the networks."""
        encoded = self._networks["encoder"].infer({"image": images})
        codes = encoded["code"].astype(np.uint8, copy=False)
        classifier = logits_of(self._networks["classifier"], "code", codes)
        logits: dict[LogitStage, Floats] = {"classifier": classifier, "chain": classifier}
        if "baseline" in self._networks:
            logits["baseline"] = logits_of(self._networks["baseline"], "image", images)
        # In the precision of a golden file, so that both references count the same flips.
        return Answers(codes, logits), encoded["margins"].astype(np.float32)


class GoldenReference(Reference):
    """The answers that a golden file holds for its own images."""

    def __init__(self, golden: Golden) -> None:
        self._golden = golden
        self._position = 0

    def answer(self, images: Bytes) -> tuple[Answers, Floats]:
        """Return the next stored answers."""
        golden = self._golden
        part = slice(self._position, self._position + len(images))
        self._position = part.stop
        classifier = golden.logits["classifier"][part]
        logits: dict[LogitStage, Floats] = {"classifier": classifier, "chain": classifier}
        if "baseline" in golden.logits:
            logits["baseline"] = golden.logits["baseline"][part]
        return Answers(golden.codes[part], logits), golden.margins[part].astype(np.float32)


def as_margins(activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return pre-binarization activations over the standard deviation of their image's.

    The signs stay: a negative value that is too small for float16 becomes the smallest negative one, since
    as -0.0 it would be the bit 1. Values beyond float16 become its largest. Near `measures.TIE_MARGIN`,
    float16 has steps of 0.6 %: flips between 0.9984 and 1 of that margin may count as unexplained.

    Args:
        activations: ``float32 [N, code bits]``.

    Returns:
        ``float16 [N, code bits]``; NaN for an image whose activations are NaN or infinite.
    """
    with np.errstate(invalid="ignore"):  # an infinite activation has no standard deviation
        # Per image, so that it does not matter which images are verified together.
        scales = activations.std(axis=1, keepdims=True)
    scales[scales == 0] = 1
    limits = np.finfo(np.float16)
    margins = np.clip(activations / scales, limits.min, limits.max).astype(np.float16)
    margins[(activations < 0) & (margins >= 0)] = -limits.smallest_subnormal
    return margins
