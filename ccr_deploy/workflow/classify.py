"""Images and payload files to answers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
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
    """What a file is of: an image, with its pixels ``uint8 [H, W, 3]`` as encoded, or a payload."""

    path: Path
    image: npt.NDArray[np.uint8] | None
    payload_bytes: int
    prediction: Prediction

    @property
    def jpeg_bytes(self) -> int | None:
        """What a JPEG of the image's pixels would take; None for a payload."""
        return None if self.image is None else jpeg_bytes(self.image)


def classify_files(
    bundle: Bundle,
    target: str,
    store: EngineStore,
    files: Sequence[SourceFile],
    batch: int | None = None,
) -> Iterator[Answer]:
    """Classifies images and payloads, batch by batch; without an image no encoder is loaded.

    Args:
        bundle: what codes mean.
        target: what its engines were built for.
        store: where they are.
        files: images and payloads.
        batch: how many an engine is given at once; without it the target's most common batch.

    Raises:
        WrongUsageError, EngineError, MissingExtraError: an engine is not there, takes no such batch, or
            cannot be loaded.
        ImageError: an image cannot be used.
        PayloadError: a payload is damaged or speaks another contract; the message names its file.
    """
    contract = bundle.manifest.contract
    payload_files = {file.path for file in files if is_payload(file.path)}
    needs_encoder = any(file.path not in payload_files for file in files)
    stages: list[Stage] = ["encoder", "classifier"] if needs_encoder else ["classifier"]
    at_once = batch_size(batch, store.chosen(bundle, target), stages)
    with ExitStack() as stack:
        classifier = stack.enter_context(Classifier.load(bundle, target, store))
        encoder = stack.enter_context(Encoder.load(bundle, target, store)) if needs_encoder else None
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
    """The payload in a file, checked against a contract.

    Raises:
        WrongUsageError: the file cannot be read.
        PayloadError: it is damaged or speaks another contract.
    """
    payload = read_payload_bytes(path)
    try:
        decode_payload(payload, contract)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error
    return payload
