"""The results of the library for real images, to compare those of servers in containers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.hosts.clients import ask
from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.data.images import list_images, load_images
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier, Encoder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.codec.contract import CodeContract

ASKED = 8
"""Images: as many as one request may bring."""


@dataclass(frozen=True)
class LibraryAnswers:
    """Images, and the library's results for them on a target."""

    contract: CodeContract
    paths: list[Path]
    images: npt.NDArray[np.uint8]
    payloads: list[bytes]
    labels: list[tuple[int, str]]

    def check(self, address: str, protocol: str) -> None:
        """Send the images to a server, and compare the results.

        Args:
            address: the server's host and port.
            protocol: ``http`` or ``grpc``.
        """
        found = ask(address, self.images, protocol)
        assert [encode_payload(code, self.contract) for code in found.codes] == self.payloads
        assert found.labels == [name for _, name in self.labels]


def library_answers(bundle: Bundle, target: str, folder: Path, engines: Path) -> LibraryAnswers:
    """Return the results of `ccr_deploy.runtime`.

    Args:
        bundle: the bundle.
        target: the name of the target.
        folder: image files in sub-folders; some are selected evenly.
        engines: a folder for the engines.
    """
    store = EngineStore(engines)
    factory = EngineFactory(bundle, target, store)
    stages = ("encoder", "classifier")
    for stage in stages:
        factory.build(stage)
    store.choose(bundle, target, {stage: factory.resolved(stage) for stage in stages})
    items = list_images(folder, bundle.manifest.class_names)
    paths = [item.path for item in items[:: len(items) // ASKED]][:ASKED]
    contract = bundle.manifest.contract
    images = load_images(paths, contract.preprocessing, contract.image_height, contract.image_width)
    with Encoder.load(bundle, target, store) as encoder, Classifier.load(bundle, target, store) as classifier:
        payloads = encoder.encode(images)
        labels = [(answer.label, answer.name) for answer in classifier.classify(payloads)]
    return LibraryAnswers(contract, paths, images, payloads, labels)
