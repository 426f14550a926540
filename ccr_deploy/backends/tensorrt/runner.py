"""An engine in memory.

Buffers on the GPU and pinned on the host are allocated once, for the largest batch. A batch runs by the
smallest profile that it fits, padded; a larger one in parts (`profiles`), which overlap (`pipeline`). On its
first use, a profile gets its own execution context and a CUDA graph of its kernels.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.runner import Outputs, Runner, check_feeds
from ccr_deploy.backends.tensorrt.contexts import LoadedEngine
from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray, is_device_array, view_of
from ccr_deploy.backends.tensorrt.in_place import InPlace
from ccr_deploy.backends.tensorrt.memory import Memory
from ccr_deploy.backends.tensorrt.pipeline import Pipeline
from ccr_deploy.backends.tensorrt.profiles import parts_of
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ccr_deploy.backends.runner import Arrays


class TensorRtRunner(Runner):
    """A deserialized engine with its buffers and its streams."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401 -- it has no types
        cuda: Any,  # noqa: ANN401
        plan: bytes,
        path: Path,
        *,
        runtime_cache: Path | None,
        allow_host_code: bool,
    ) -> None:
        """Deserialize a plan, and allocate its memory.

        Args:
            library: TensorRT or TensorRT-RTX.
            cuda: the bindings of the CUDA runtime.
            plan: the content of the engine's file, already compared with its sidecar.
            path: the engine's file, for messages.
            runtime_cache: the file in which TensorRT-RTX keeps compiled kernels; None for TensorRT, which
                compiles all kernels during the build.
            allow_host_code: whether the plan may execute the code that it contains.

        Raises:
            EngineError: if TensorRT rejects the plan, or the GPU's memory does not suffice.
        """
        self._lock = threading.Lock()
        self._plan_bytes = len(plan)
        self._stack = ExitStack()  # takes the CUDA graphs too, which are captured later
        with ExitStack() as on_error:
            on_error.callback(self._stack.close)
            self._memory = Memory(cuda, self._stack)
            self._engine = LoadedEngine(
                library,
                plan,
                path,
                self._memory,
                runtime_cache=runtime_cache,
                allow_host_code=allow_host_code,
            )
            self._pipeline = Pipeline(cuda, self._memory, self._engine, self._stack)
            self._in_place = InPlace(self._engine, self._pipeline.lanes[0])
            self.inputs = self._engine.inputs
            self._stack.callback(self._drop_objects)
            on_error.pop_all()  # from here on, `close` releases everything

    def close(self) -> None:
        """Wait until no thread uses the engine, and release it."""
        with self._lock:
            super().close()

    @property
    def device_memory_mib(self) -> float:
        """The size of the buffers, the scratch memory and the engine's file, in MiB.

        The memory of the CUDA context, and what TensorRT allocates for each execution context, is not
        included.
        """
        return (self._memory.device_bytes + self._plan_bytes) / 2**20

    @property
    def captured_batch_sizes(self) -> frozenset[int]:
        """The batch sizes that have been used and run as a CUDA graph."""
        return self._pipeline.captured_batch_sizes

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """Run one batch of inputs, by name; return the outputs by name, as new arrays on the host.

        A batch over the largest that the engine was built for is run in parts. An array that is on the GPU,
        of any library with DLPack or ``__cuda_array_interface__``, is read in place if its address is a
        multiple of 256 bytes and its size is one of the engine's; otherwise it is copied within the GPU.

        Raises:
            EngineError: if an input does not match, the runner is closed, another thread uses it, or the GPU
                fails.
        """
        with self._exclusive():
            return super().infer(feeds)

    def on_device(self, feeds: Arrays) -> Callable[[], None] | None:
        """Copy one batch of inputs to the GPU, and return a function that runs its kernels and waits.

        None for a batch over the largest that the engine was built for, whose parts overlap with copies.

        Raises:
            EngineError: if an input does not match, or the GPU fails.
        """
        check_feeds(feeds, self.inputs)
        parts = parts_of(len(next(iter(feeds.values()))), self._engine.profiles)
        if len(parts) > 1:
            return None
        return self._pipeline.on_device(parts[0], feeds, lambda: self.device_timer)

    def _views(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: view_of(name, array, self._in_place.stream) if is_device_array(array) else array
            for name, array in feeds.items()
        }

    def _run(self, feeds: Mapping[str, Any]) -> Outputs:
        batch = len(next(iter(feeds.values())))
        parts = parts_of(batch, self._engine.profiles)
        outputs: Outputs = {
            spec.name: np.empty((batch, *(size or 1 for size in spec.shape[1:])), spec.dtype)
            for spec in self._engine.outputs
        }
        is_on_device = any(isinstance(view, DeviceArray) for view in feeds.values())
        self._engine.forget_errors()
        try:
            (self._in_place if is_on_device else self._pipeline).run(parts, feeds, outputs, self.device_timer)
        except BaseException:
            # Also after Ctrl-C: the GPU may still be reading the caller's arrays, or writing to the buffers.
            with suppress(EngineError):  # the first error tells more
                self._pipeline.wait()
            raise
        return outputs

    def _close(self) -> None:
        self._stack.close()

    def _drop_objects(self) -> None:
        """Drop TensorRT's objects, the contexts before the engine, as TensorRT requires."""
        self._pipeline.release()
        self._in_place.release()
        self._engine.release()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise EngineError("another thread uses this runner: create one runner per thread")
        try:
            yield
        finally:
            self._lock.release()
