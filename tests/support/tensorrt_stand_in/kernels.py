"""The kernels of the stand-in's engine, on the stand-in for CUDA; a GPU has its own in `gpu_kernels`.

Two kernels, so that they pass data through the scratch memory, as those of a real engine do: the first one
adds the bytes of each row of ``image``, the second one computes both outputs from the sums and from ``bias``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tests.support.tensorrt_stand_in.cuda import Operation, Owner, StandInCuda

if TYPE_CHECKING:
    import numpy.typing as npt

IMAGE_BYTES, BIAS_BYTES, CODE_BYTES, LOGITS = 512, 3, 5, 2
SUM_BYTES = 4
"""The scratch memory that a row needs."""


@dataclass(frozen=True)
class Addresses:
    """The addresses of the engine's tensors and of its scratch memory."""

    image: int
    bias: int
    code: int
    logits: int
    scratch: int


class Kernels(Protocol):
    """What the stand-in's library needs from CUDA."""

    def launch(self, stream: int, at: Addresses, batch: int, owner: Owner) -> None:
        """Enqueue both kernels.

        Args:
            stream: the stream.
            at: the memory that they use.
            batch: the number of rows.
            owner: the execution context.
        """

    def is_capturing(self, stream: int) -> bool:
        """Return whether a stream is capturing a graph."""

    def destroy_owner(self, owner: Owner) -> None:
        """Note that an object of the library was destroyed."""


class CpuKernels:
    """The kernels in NumPy, on the stand-in for CUDA."""

    def __init__(self, cuda: StandInCuda) -> None:
        self._cuda = cuda
        self.is_capturing = cuda.is_capturing
        self.destroy_owner = cuda.destroy_owner

    def launch(self, stream: int, at: Addresses, batch: int, owner: Owner) -> None:
        def rows(address: int, length: int, dtype: str = "uint8") -> npt.NDArray[np.generic]:
            size = batch * length * np.dtype(dtype).itemsize
            return self._cuda.view(address, size, "device").view(dtype).reshape(batch, length)

        def add() -> None:
            rows(at.scratch, 1, "uint32")[:, 0] = rows(at.image, IMAGE_BYTES).sum(axis=1, dtype=np.uint32)

        def finish() -> None:
            sums = rows(at.scratch, 1, "uint32")[:, 0].copy()
            rows(at.scratch, 1, "uint32")[:] = 0xFFFFFFFF  # the scratch memory keeps nothing for a later run
            bias = rows(at.bias, BIAS_BYTES)
            rows(at.code, CODE_BYTES)[:] = code_of(sums, bias)
            rows(at.logits, LOGITS, "float32")[:] = logits_of(sums, bias)

        self._cuda.enqueue(stream, Operation("kernel", add, (at.image, at.scratch), owner))
        used = (at.scratch, at.bias, at.code, at.logits)
        self._cuda.enqueue(stream, Operation("kernel", finish, used, owner))


def expected(image: npt.NDArray[np.uint8], bias: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the outputs of the stand-in's engine."""
    sums = image.sum(axis=1, dtype=np.uint32)
    return {"code": code_of(sums, bias), "logits": logits_of(sums, bias)}


def code_of(sums: npt.NDArray[np.uint32], bias: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    steps = 7 * np.arange(CODE_BYTES, dtype=np.uint32)
    return (sums[:, None] + steps + bias[:, :1]).astype(np.uint8)


def logits_of(sums: npt.NDArray[np.uint32], bias: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return (sums[:, None] * np.arange(1, LOGITS + 1) + bias[:, 1:]).astype(np.float32)
