"""The library API of a product: images to payloads on one side, payloads to labels on the other.

It needs NumPy, Pillow, msgspec and the engine's own backend: no PyTorch, no ONNX. The engine is what
``ccr-deploy build-engine`` built last for the bundle and the target on a machine like this one; of the bundle
its manifest is enough. Give each thread objects of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ccr_deploy.backends.registry import make_backend
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.codec.payload import PayloadWriter, decode_payload
from ccr_deploy.core.metrics import softmax
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.engines.lookup import engine_key, find_engine, not_built
from ccr_deploy.engines.store import EngineStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.core.stages import Stage


@dataclass(frozen=True)
class Prediction:
    """A classifier's answer: the class, its name, its probability."""

    label: int
    name: str
    probability: float


class _EngineUser:
    """One stage's engine in memory. A context manager; `bundle` says what codes mean."""

    _stage: ClassVar[Stage]

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self._runner = runner

    @classmethod
    def load(cls, bundle: Bundle | Path | str, target: str, store: EngineStore | None = None) -> Self:
        """Loads the engine that was built last for a bundle, or its folder, and a target.

        It is taken from the default store unless one is given, and checked against its sidecar first.

        Raises:
            WrongUsageError: there is no such bundle, or no engine was built for it and the target.
            BundleError: the bundle's manifest is damaged.
            EngineError: the engine is damaged or cannot be loaded.
            MissingExtraError: its backend is not installed.
        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.read(Path(bundle))
        store = store or EngineStore.default()
        resolved = store.chosen(bundle, target).get(cls._stage)
        if resolved is None:
            raise not_built(store, bundle, target, cls._stage)
        backend = make_backend(resolved.options)
        key = engine_key(bundle, cls._stage, resolved, backend)
        engine = find_engine(store, bundle, target, key, backend.suffix)
        return cls(bundle, load_engine(backend, engine.path, resolved.precision))

    @property
    def contract(self) -> CodeContract:
        """What the codes mean, and which images are encoded: their size and preprocessing."""
        return self.bundle.manifest.contract

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._runner.__exit__(kind, error, trace)


class Encoder(_EngineUser):
    """Images to payloads. A context manager."""

    _stage = "encoder"

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        super().__init__(bundle, runner)
        self._writer = PayloadWriter(bundle.manifest.contract)

    def encode(self, images: npt.NDArray[np.uint8]) -> list[bytes]:
        """One payload for each image of ``uint8 [N, H, W, 3]``.

        `ccr_deploy.data.images.load_image` makes such an image of an image's file.

        Raises:
            EngineError: the images have another type or shape, or the encoder was closed.
        """
        codes = self._runner.infer({"image": images})["code"].astype(np.uint8, copy=False)
        return self._writer.payloads(codes)


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
        codes = np.stack([decode_payload(payload, self.contract) for payload in payloads])
        logits = self._runner.infer({"code": codes})["logits"].astype(np.float32, copy=False)
        probabilities = softmax(logits)
        labels = [int(label) for label in probabilities.argmax(axis=1)]
        return [
            Prediction(label, self.bundle.manifest.class_name(label), float(row[label]))
            for label, row in zip(labels, probabilities, strict=True)
        ]
