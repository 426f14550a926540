"""Requests to a server in a container, with Triton's client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tritonclient.grpc
import tritonclient.http

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@dataclass(frozen=True)
class Answers:
    """The server's results for N images: codes ``uint8 [N, bytes]`` and class names."""

    codes: npt.NDArray[np.uint8]
    labels: list[str]


def ask(address: str, images: npt.NDArray[np.uint8], protocol: str = "http") -> Answers:
    """Send images to a server to be encoded, then their codes to be classified.

    Args:
        address: the server's host and port.
        images: ``uint8 [N, H, W, 3]``.
        protocol: ``http`` or ``grpc``.
    """
    library: Any = CLIENTS[protocol]
    with library.InferenceServerClient(address) as client:

        def infer(model: str, name: str, array: npt.NDArray[np.uint8], output: str) -> npt.NDArray[Any]:
            tensor = library.InferInput(name, list(array.shape), "UINT8")
            tensor.set_data_from_numpy(array)
            answer: npt.NDArray[Any] = client.infer(model, [tensor]).as_numpy(output)
            return answer

        codes = infer("encoder", "image", images, "code")
        labels = infer("classifier", "code", codes, "label")
    return Answers(codes, [label.decode() for label in labels])
