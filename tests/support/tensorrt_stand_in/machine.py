"""A machine on which the runner is tested: some CUDA, and the stand-in for TensorRT."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.tensorrt.memory import Memory, Stream
from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
from tests.support.tensorrt_stand_in.kernels import BIAS_BYTES, IMAGE_BYTES, expected
from tests.support.tensorrt_stand_in.library import StandInLibrary, plan_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tests.support.tensorrt_stand_in.kernels import Kernels
    from tests.support.tensorrt_stand_in.library import Version

SIZES = ((1, 1), (4, 4), (16, 16))
"""The smallest and the largest batch of each profile."""
DYNAMIC = ((1, 16),)


class Machine:
    """CUDA or its stand-in, and the stand-in for TensorRT."""

    def __init__(self, folder: Path, cuda: Any, kernels: Kernels) -> None:
        """Prepare to load engines.

        Args:
            folder: the folder of engines.
            cuda: the bindings of the CUDA runtime, or their stand-in.
            kernels: the kernels of engines.
        """
        self.cuda = cuda
        self.library = StandInLibrary(kernels)
        self.cache = folder / "engine.plan.cache"
        self._folder = folder
        self._kernels = kernels
        self._random = np.random.default_rng(0)

    def use_version(self, version: Version) -> None:
        """Use another version of TensorRT."""
        self.library = StandInLibrary(self._kernels, version)

    def load(self, *profiles: tuple[int, int], plan: bytes = b"") -> TensorRtRunner:
        """Load an engine with the given smallest and largest batch sizes."""
        return TensorRtRunner(
            self.library,
            self.cuda,
            plan or plan_of(*(profiles or SIZES)),
            self._folder / "engine.plan",
            runtime_cache=self.cache if self.library.version == "rtx" else None,
            allow_host_code=False,
        )

    def feeds(self, batch: int) -> dict[str, npt.NDArray[np.uint8]]:
        """Return inputs that no other call returns."""
        return {
            "image": self._random.integers(0, 256, (batch, IMAGE_BYTES), np.uint8),
            "bias": self._random.integers(0, 256, (batch, BIAS_BYTES), np.uint8),
        }

    def check(self, runner: TensorRtRunner, batch: int) -> None:
        """Run a batch, and compare its outputs with the expected ones."""
        feeds = self.feeds(batch)
        check_equal(runner.infer(feeds), feeds)

    def on_device(self, array: npt.NDArray[np.uint8], offset: int = 0) -> OnDevice:
        """Copy an array to memory of the GPU that belongs to the caller."""
        return OnDevice(self.cuda, array, offset)


class OnDevice:
    """An array of the caller on the GPU."""

    def __init__(self, cuda: Any, array: npt.NDArray[np.uint8], offset: int) -> None:
        """Copy an array to the GPU.

        Args:
            cuda: the bindings of the CUDA runtime, or their stand-in.
            array: the array.
            offset: the distance of its address from a multiple of 256.
        """
        self.shape = array.shape
        self._memory = ExitStack()
        self.address = Memory(cuda, self._memory).on_device(array.nbytes + offset) + offset
        with ExitStack() as temporary:
            host = Memory(cuda, temporary).pinned(array.shape, "uint8")
            stream = Stream(cuda, temporary)
            host[:] = array
            stream.copy_to_device(self.address, host)
            stream.wait()

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        """The array, by the interface of Numba."""
        pointer = (self.address, False)
        return {"shape": self.shape, "typestr": "|u1", "data": pointer, "version": 3, "stream": None}

    def release(self) -> None:
        """Free its memory."""
        self._memory.close()


def check_equal(found: dict[str, npt.NDArray[np.generic]], feeds: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Compare outputs with the expected ones."""
    outputs = expected(**feeds)
    assert found.keys() == outputs.keys()
    for name, output in outputs.items():
        np.testing.assert_array_equal(found[name], output)
        assert found[name].dtype == output.dtype
