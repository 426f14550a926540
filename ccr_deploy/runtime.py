"""The library API of a product: images to payloads on one side, payloads to labels on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ccr_deploy.engine_factory import EngineFactory
from ccr_deploy.engine_store import EngineStore
from ccr_deploy.metrics import softmax
from ccr_deploy.payload import decode_payload, encode_payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

    from ccr_deploy.backends.base import Runner
    from ccr_deploy.bundle import Bundle, Stage


@dataclass(frozen=True)
class Prediction:
    """A classifier's answer: the class, its name, its probability."""

    label: int
    name: str
    probability: float


class _EngineUser:
    """One stage's engine in memory. A context manager."""

    _stage: ClassVar[Stage]

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self._runner = runner

    @classmethod
    def load(cls, bundle: Bundle, target: str, store: EngineStore | None = None) -> Self:
        """Loads the bundle's engine for a target, from the default store unless one is given.

        Raises:
            WrongUsageError: the engine was not built yet, or there is no such target.
            EngineError: the engine is damaged or cannot be loaded.
        """
        factory = EngineFactory.of_last_build(bundle, target, store or EngineStore.default())
        return cls(bundle, factory.load(factory.find(cls._stage)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._runner.__exit__(kind, error, trace)


class Encoder(_EngineUser):
    """Images to payloads. A context manager."""

    _stage = "encoder"

    def encode(self, images: npt.NDArray[np.uint8]) -> list[bytes]:
        """One payload for each image of ``uint8 [N, H, W, 3]``.

        Raises:
            EngineError: the images have another type or shape, or the encoder was closed.
        """
        codes = self._runner.infer({"image": images})["code"].astype(np.uint8, copy=False)
        return [encode_payload(code, self.bundle.manifest.contract) for code in codes]


class Classifier(_EngineUser):
    """Payloads to predictions. A context manager."""

    _stage = "classifier"

    def classify(self, payloads: Sequence[bytes]) -> list[Prediction]:
        """One prediction for each payload.

        Raises:
            PayloadError: a payload is damaged or speaks another contract.
            EngineError: the classifier was closed.
        """
        if not payloads:
            return []
        codes = np.stack([decode_payload(payload, self.bundle.manifest.contract) for payload in payloads])
        probabilities = softmax(self._runner.infer({"code": codes})["logits"].astype(np.float32, copy=False))
        return [
            Prediction(
                int(row.argmax()), self.bundle.manifest.class_name(int(row.argmax())), float(row.max())
            )
            for row in probabilities
        ]
