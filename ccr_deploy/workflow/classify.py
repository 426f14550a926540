"""Classification of image and payload files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.codec.payload import decode_payload
from ccr_deploy.data.images import jpeg_bytes
from ccr_deploy.errors import PayloadError
from ccr_deploy.runtime import Classifier, Encoder
from ccr_deploy.workflow.batches import batch_size, in_batches
from ccr_deploy.workflow.sources import contract_image, is_payload, read_payload_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.contract import CodeContract
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.runtime import Prediction
    from ccr_deploy.workflow.sources import SourceFile


@dataclass(frozen=True)
class Answer:
    """The classification of a file; `image` is ``uint8 [H, W, 3]`` as encoded, None for a payload file."""

    path: Path
    image: npt.NDArray[np.uint8] | None
    payload_bytes: int
    prediction: Prediction

    @property
    def jpeg_bytes(self) -> int | None:
        """The size of a JPEG of the image in bytes; None for a payload file."""
        return None if self.image is None else jpeg_bytes(self.image)


def classify_files(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    files: Sequence[SourceFile],
    batch: int | None = None,
    *,
    require_verified: bool = False,
) -> Iterator[Answer]:
    """Classify images and payloads, batch by batch; the encoder is loaded only if there is an image.

    Args:
        bundle: bundle that the engines were built from.
        target: name or TOML file of the target.
        store: engine store.
        files: image and payload files.
        batch: images or payloads per run of an engine; None for the target's usual batch.
        require_verified: whether to refuse engines that have not passed `ccr-deploy verify`.

    Raises:
        WrongUsageError: if an engine was not built, or its maximum batch is smaller than `batch`.
        EngineError: if an engine cannot be loaded or run, or is not verified although this is required.
        MissingExtraError: if the backend's package is not installed.
        ImageError: if an image cannot be read or is too small.
        PayloadError: if a payload is damaged or has another contract; the message names the file.
    """
    contract = bundle.manifest.contract
    payload_files = {file.path for file in files if is_payload(file.path)}
    needs_encoder = any(file.path not in payload_files for file in files)
    stages: list[Stage] = ["encoder", "classifier"] if needs_encoder else ["classifier"]
    at_once = batch_size(batch, store.chosen(bundle, target), stages)
    with ExitStack() as stack:
        load_classifier = partial(Classifier.load, require_verified=require_verified)
        load_encoder = partial(Encoder.load, require_verified=require_verified)
        classifier = stack.enter_context(load_classifier(bundle, target, store))
        encoder = stack.enter_context(load_encoder(bundle, target, store)) if needs_encoder else None
        for paths in in_batches([file.path for file in files], at_once):
            images = {path: contract_image(path, contract) for path in paths if path not in payload_files}
            made: dict[Path, bytes] = {}
            if encoder and images:
                made = dict(zip(images, encoder.encode(np.stack(list(images.values()))), strict=True))
            payloads = [made.get(path) or read_payload_file(path, contract) for path in paths]
            predictions = classifier.classify(payloads)
            for path, payload, prediction in zip(paths, payloads, predictions, strict=True):
                yield Answer(path, images.get(path), len(payload), prediction)


def read_payload_file(path: Path, contract: CodeContract) -> bytes:
    """Read a payload file and check it against a contract.

    Raises:
        WrongUsageError: if the file cannot be read.
        PayloadError: if the payload is damaged or has another contract.
    """
    payload = read_payload_bytes(path)
    try:
        decode_payload(payload, contract)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error
    return payload
