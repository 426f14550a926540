"""An engine in memory.

Buffers on the GPU and pinned on the host are allocated once, for the largest batch. On its first use, a batch
size gets its own execution context and a CUDA graph of the copies in, the kernels and the copies out. The
contexts share one scratch memory, because only one of them runs at a time. `infer` splits a batch over the
largest into parts, and waits for the GPU once per part.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.device_timer import timed_on_device
from ccr_deploy.backends.runner import Outputs, Runner, TensorSpec
from ccr_deploy.backends.tensorrt.cuda_graph import capture
from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray, is_device_array, view_of
from ccr_deploy.backends.tensorrt.memory import Memory, TensorBuffer
from ccr_deploy.backends.tensorrt.plan import NO_REASON, deserialize, error_logger, scratch_bytes
from ccr_deploy.backends.tensorrt.runtime_cache import RuntimeCache
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_ALIGNMENT = 256
"""TensorRT requires the addresses of tensors to be multiples of this number of bytes."""


@dataclass(frozen=True)
class _BatchSize:
    """A prepared batch size: `run` runs it, and a captured graph keeps using its `context`."""

    context: Any
    run: Callable[[], None]
    is_captured: bool


class TensorRtRunner(Runner):
    """A deserialized engine with its buffers and its stream."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401 -- it has no types
        plan: bytes,
        path: Path,
        *,
        runtime_cache: Path | None,
        allow_host_code: bool,
    ) -> None:
        """Deserialize a plan, and allocate its memory.

        Args:
            library: TensorRT or TensorRT-RTX.
            plan: the content of the engine's file, already compared with its sidecar.
            path: the engine's file, for messages.
            runtime_cache: the file in which TensorRT-RTX keeps compiled kernels; None for TensorRT, which
                compiles all kernels during the build.
            allow_host_code: whether the plan may execute the code that it contains.

        Raises:
            EngineError: if TensorRT rejects the plan, or the GPU's memory does not suffice.
        """
        self._library = library
        self._lock = threading.Lock()
        self._batch_sizes: dict[int, _BatchSize] = {}
        self._direct_batch_sizes: set[int] = set()
        self._logger = error_logger(library)
        with ExitStack() as stack:
            self._memory = Memory(stack)
            self._runtime, self._engine = deserialize(library, plan, path, allow_host_code=allow_host_code)
            self._plan_bytes = len(plan)
            names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
            is_input = library.TensorIOMode.INPUT
            inputs = [name for name in names if self._engine.get_tensor_mode(name) == is_input]
            smallest, _, largest = self._engine.get_tensor_profile_shape(inputs[0], 0)
            self._smallest_batch, self._largest_batch = smallest[0], largest[0]
            buffers = {
                name: TensorBuffer(self._memory, self._spec(name), self._largest_batch) for name in names
            }
            self._inputs = {name: buffers[name] for name in inputs}
            self._outputs = {name: buffer for name, buffer in buffers.items() if name not in self._inputs}
            self.inputs = tuple(buffer.spec for buffer in self._inputs.values())
            self._scratch_bytes = scratch_bytes(self._engine)
            self._scratch = self._memory.on_device(self._scratch_bytes)
            self._configuration, self._cache = self._runtime_configuration(runtime_cache)
            self._direct_context = self._new_context()
            stack.callback(self._drop_objects)
            self._stack = stack.pop_all()  # an error above releases everything; from here on, `close` does

    def close(self) -> None:
        """Wait until no thread uses the engine, and release it."""
        with self._lock:
            super().close()

    @property
    def device_memory_mib(self) -> float:
        """The size of the buffers, the scratch memory and the engine's file, in MiB.

        The memory of the CUDA context, and what TensorRT allocates for each captured batch size, is not
        included.
        """
        return (self._memory.device_bytes + self._plan_bytes) / 2**20

    @property
    def captured_batch_sizes(self) -> frozenset[int]:
        """The batch sizes that have been used and run as a CUDA graph."""
        return frozenset(size for size, entry in self._batch_sizes.items() if entry.is_captured)

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """Run one batch of inputs, by name; return the outputs by name, as new arrays on the host.

        A batch over the largest that the engine was built for is run in parts. An array that is on the GPU,
        of any library with DLPack or ``__cuda_array_interface__``, is read in place if its address is a
        multiple of 256 bytes; otherwise it is copied within the GPU.

        Raises:
            EngineError: if an input does not match, the runner is closed, another thread uses it, or the GPU
                fails.
        """
        with self._exclusive():
            return super().infer(feeds)

    def _views(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: view_of(name, array, self._memory.stream) if is_device_array(array) else array
            for name, array in feeds.items()
        }

    def _run(self, feeds: Mapping[str, Any]) -> Outputs:
        size = len(next(iter(feeds.values())))
        parts = [
            self._run_part(feeds, start, min(self._largest_batch, size - start))
            for start in range(0, size, self._largest_batch)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _close(self) -> None:
        self._stack.close()

    def _run_part(self, views: Mapping[str, Any], start: int, size: int) -> Outputs:
        """Run the part of a batch with `size` images from index `start` on."""
        # An engine cannot run less than its smallest batch: the rest of the buffer holds older images, whose
        # outputs are not returned.
        padded = max(size, self._smallest_batch)
        self._logger.last = NO_REASON
        try:
            if any(isinstance(view, DeviceArray) for view in views.values()):
                self._run_in_place(views, start, size, padded)
            else:
                for name, view in views.items():
                    self._inputs[name].host[:size] = view[start : start + size]
                if padded not in self._batch_sizes:
                    self._batch_sizes[padded] = self._prepared(padded)
                with timed_on_device(self.device_timer, self._memory.stream):
                    self._batch_sizes[padded].run()
        finally:
            self._memory.wait()  # also after an error: the GPU may still be reading the caller's arrays
        return {name: buffer.host[:size].copy() for name, buffer in self._outputs.items()}

    def _prepared(self, batch: int) -> _BatchSize:
        """Prepare one batch size: its context, and a CUDA graph from pinned memory to pinned memory."""
        context = self._new_context()
        self._set_batch(context, batch)

        def enqueue() -> None:
            for buffer in self._inputs.values():
                self._memory.copy_to_device(buffer.address, buffer.host[:batch])
            self._enqueue(context)
            for buffer in self._outputs.values():
                self._memory.copy_to_host(buffer.host[:batch], buffer.address)

        # TensorRT initializes what depends on the shapes in the first run, which cannot be captured.
        enqueue()
        self._memory.wait()
        if self._cache:
            self._cache.save()
        launch = None
        if getattr(context, "is_stream_capturable", lambda _: True)(self._memory.stream):
            launch = capture(enqueue, self._memory.stream, self._stack)
        else:
            _LOGGER.warning("batch %d cannot be captured as a CUDA graph, according to TensorRT", batch)
        return _BatchSize(context, launch or enqueue, is_captured=launch is not None)

    def _run_in_place(self, views: Mapping[str, Any], start: int, size: int, padded: int) -> None:
        """Enqueue a part of a batch with some inputs that are already on the GPU."""
        # Without a CUDA graph, which holds fixed addresses: the caller's arrays have others in every call.
        context = self._direct_context
        self._set_batch(context, padded)
        for name, view in views.items():
            buffer = self._inputs[name]
            if isinstance(view, DeviceArray):
                address = view.pointer + start * view.bytes_per_item
                if address % _ALIGNMENT or padded > size:  # TensorRT would read beyond the end of the array
                    self._memory.copy_on_device(buffer.address, address, size * view.bytes_per_item)
                else:
                    self._set_address(context, name, address)
            else:
                buffer.host[:size] = view[start : start + size]
                self._memory.copy_to_device(buffer.address, buffer.host[:padded])
        self._enqueue(context)
        for buffer in self._outputs.values():
            self._memory.copy_to_host(buffer.host[:padded], buffer.address)
        if self._cache and padded not in self._direct_batch_sizes:
            self._memory.wait()
            self._cache.save()
            self._direct_batch_sizes.add(padded)

    def _enqueue(self, context: Any) -> None:  # noqa: ANN401
        if not context.execute_async_v3(self._memory.stream):
            raise EngineError(f"TensorRT cannot run the engine: {self._logger.last}")

    def _set_batch(self, context: Any, batch: int) -> None:  # noqa: ANN401
        for name, buffer in (self._inputs | self._outputs).items():
            shape = (batch, *buffer.host.shape[1:])
            if name in self._inputs and not context.set_input_shape(name, shape):
                raise EngineError(f"TensorRT rejects batch {batch}: {self._logger.last}")
            self._set_address(context, name, buffer.address)

    def _set_address(self, context: Any, name: str, address: int) -> None:  # noqa: ANN401
        if not context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT rejects the memory of {name}: {self._logger.last}")

    def _new_context(self) -> Any:  # noqa: ANN401
        """Create an execution context that uses the runner's scratch memory."""
        # TensorRT-RTX, TensorRT from 10 on, and TensorRT 8.6 have different calls for this.
        if self._configuration is not None:
            context = self._engine.create_execution_context(self._configuration)
        elif hasattr(self._library, "ExecutionContextAllocationStrategy"):
            strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
        else:
            context = self._engine.create_execution_context_without_device_memory()
        if context is None:
            raise EngineError(f"TensorRT cannot create an execution context: {self._logger.last}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch, self._scratch_bytes)
        else:
            context.device_memory = self._scratch
        return context

    def _runtime_configuration(self, cache_path: Path | None) -> tuple[Any, RuntimeCache | None]:
        """Return TensorRT-RTX's runtime configuration and its runtime cache; TensorRT has neither."""
        if cache_path is None:
            return None, None
        library = self._library
        configuration = self._engine.create_runtime_config()
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        configuration.set_execution_context_allocation_strategy(strategy)
        # EAGER compiles specialized kernels at once. The default compiles them in the background, and a CUDA
        # graph captured meanwhile would keep the slower fallback kernels.
        specialization = library.DynamicShapesKernelSpecializationStrategy.EAGER
        configuration.dynamic_shapes_kernel_specialization_strategy = specialization
        return configuration, RuntimeCache(configuration, cache_path)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return TensorSpec(name, dtype.name, (None, *shape[1:]))

    def _drop_objects(self) -> None:
        """Drop TensorRT's objects, the contexts before the engine, as TensorRT requires."""
        self._batch_sizes.clear()
        self._direct_context = self._configuration = self._cache = None
        self._engine = self._runtime = None

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise EngineError("another thread uses this runner: create one runner per thread")
        try:
            yield
        finally:
            self._lock.release()
