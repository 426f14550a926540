"""The library API for products: encode images to payloads, classify payloads.

Needs only NumPy, Pillow, msgspec and the packages of the engine's backend, not PyTorch or ONNX. The engine
must have been built with ``ccr-deploy build-engine`` for the bundle and the target, on a machine like this
one; the last one built is used. Of the bundle only the manifest is read. The classes are not thread-safe:
create one object per thread.

Example::

    from pathlib import Path

    from ccr_deploy.data.images import load_image
    from ccr_deploy.runtime import Classifier, Encoder

    with Encoder.load("bundle", "cpu") as encoder:
        contract = encoder.contract
        size = contract.image_height, contract.image_width
        image = load_image(Path("photo.jpg"), contract.preprocessing, *size)
        (payload,) = encoder.encode(image[None])
    with Classifier.load("bundle", "cpu") as classifier:
        (prediction,) = classifier.classify([payload])
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
    """The most probable class of a payload: its label, name and probability (0..1)."""

    label: int
    name: str
    probability: float


class _EngineUser:
    """The loaded engine of one stage and its bundle. A context manager."""

    _stage: ClassVar[Stage]

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self._runner = runner

    @classmethod
    def load(
        cls,
        bundle: Bundle | Path | str,
        target: str,
        store: EngineStore | None = None,
        *,
        require_verified: bool = False,
    ) -> Self:
        """Load the last engine built for a bundle and a target, after checking it against its sidecar.

        Args:
            bundle: the bundle, or the path of its folder.
            target: the target as given to ``ccr-deploy build-engine``: a name, or the path of a TOML file.
            store: the engine store; None for the default, ``$CCR_DEPLOY_ENGINES`` or the user's cache.
            require_verified: whether to refuse an engine that has not passed ``ccr-deploy verify``.

        Raises:
            WrongUsageError: if the bundle does not exist, or no engine was built for it and the target.
            BundleError: if the bundle's manifest is damaged.
            EngineError: if the engine is damaged or cannot be loaded, or is not verified although this is
                required.
            MissingExtraError: if the packages of its backend are not installed.
        """
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.read(Path(bundle))
        store = store or EngineStore.default()
        resolved = store.chosen(bundle, target).get(cls._stage)
        if resolved is None:
            raise not_built(store, bundle, target, cls._stage)
        backend = make_backend(resolved.options)
        key = engine_key(bundle, cls._stage, resolved, backend)
        engine = find_engine(store, bundle, target, key, backend.suffix, require_verified=require_verified)
        found = engine.sidecar.engine_sha256
        return cls(bundle, load_engine(backend, engine.path, resolved.precision, engine_sha256=found))

    @property
    def contract(self) -> CodeContract:
        """The code contract: image size, preprocessing and code shape."""
        return self.bundle.manifest.contract

    @property
    def device_memory_mib(self) -> float | None:
        """The GPU memory that the engine holds, in MiB; None on a CPU."""
        return self._runner.device_memory_mib

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._runner.__exit__(kind, error, trace)


class Encoder(_EngineUser):
    """Encodes images to payloads. A context manager."""

    _stage = "encoder"

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        super().__init__(bundle, runner)
        self._writer = PayloadWriter(bundle.manifest.contract)

    def encode(self, images: npt.NDArray[np.uint8]) -> list[bytes]:
        """Return one payload for each image of a batch ``uint8 [N, H, W, 3]``, RGB.

        `ccr_deploy.data.images.load_image` reads an image file as such an image.

        Raises:
            EngineError: if the images have another dtype or shape, or the encoder was closed.
        """
        return self.payloads(self.codes(images))

    def codes(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the packed codes ``uint8 [N, bytes]`` of a batch of images: the first half of `encode`.

        Raises:
            EngineError: if the images have another dtype or shape, or the encoder was closed.
        """
        return self._runner.infer({"image": images})["code"].astype(np.uint8, copy=False)

    def payloads(self, codes: npt.NDArray[np.uint8]) -> list[bytes]:
        """Return one payload for each packed code: the second half of `encode`.

        Raises:
            PayloadError: if the codes have another length or type than the contract's.
        """
        return self._writer.payloads(codes)


class Classifier(_EngineUser):
    """Classifies payloads. A context manager."""

    _stage = "classifier"

    def classify(self, payloads: Sequence[bytes]) -> list[Prediction]:
        """Return one prediction for each payload, in their order.

        Raises:
            PayloadError: if a payload is damaged or has another contract.
            EngineError: if the classifier was closed.
        """
        if not payloads:
            return []
        return self.predictions(self.logits(self.codes(payloads)))

    def codes(self, payloads: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """Return the packed codes ``uint8 [N, bytes]`` of payloads: the first part of `classify`.

        Raises:
            PayloadError: if a payload is damaged or has another contract.
        """
        return np.stack([decode_payload(payload, self.contract) for payload in payloads])

    def logits(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the logits ``float32 [N, classes]`` of packed codes: the second part of `classify`.

        Raises:
            EngineError: if the classifier was closed.
        """
        return self._runner.infer({"code": codes})["logits"].astype(np.float32, copy=False)

    def predictions(self, logits: npt.NDArray[np.float32]) -> list[Prediction]:
        """Return one prediction for each row of logits: the last part of `classify`."""
        probabilities = softmax(logits)
        labels = [int(label) for label in probabilities.argmax(axis=1)]
        return [
            Prediction(label, self.bundle.manifest.class_name(label), float(row[label]))
            for label, row in zip(labels, probabilities, strict=True)
        ]
