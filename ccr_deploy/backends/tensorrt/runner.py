"""An engine in memory.

Buffers on the GPU and pinned on the host are allocated once, for the largest batch. Each batch size gets, on
its first use, an execution context of its own and a CUDA graph of copies in, kernels and copies out; the
contexts share one scratch memory, since only one of them runs at a time. `infer` waits for the GPU once for
each part of a batch, when all of the part was enqueued.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.runner import Outputs, Runner, TensorSpec
from ccr_deploy.backends.tensorrt.cuda_graph import capture
from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray, is_device_array, view_of
from ccr_deploy.backends.tensorrt.memory import BorderBuffer, Memory
from ccr_deploy.backends.tensorrt.plan import NO_REASON, complaints_of, deserialised, scratch_bytes
from ccr_deploy.backends.tensorrt.runtime_cache import RuntimeCache
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_LOGGER = logging.getLogger(__name__)
_ALIGNMENT = 256
"""TensorRT wants its tensors to begin at multiples of it."""


@dataclass(frozen=True)
class _BatchSize:
    """What runs one batch size: its context, which a captured graph goes on using, and how to run it."""

    context: Any
    run: Callable[[], None]
    is_captured: bool


class TensorRtRunner(Runner):
    """A deserialised engine with its buffers and its stream."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401 -- it has no types
        plan: bytes,
        path: Path,
        *,
        runtime_cache: Path | None,
        carries_code: bool,
    ) -> None:
        """Deserialises the `plan` that was read from `path`; both were checked before.

        `runtime_cache` is where TensorRT-RTX keeps what it compiles; full TensorRT compiles nothing here.
        A plan that `carries_code` of its own, the runtime that reads it, is allowed to run it.

        Raises:
            EngineError: TensorRT refuses the plan, or the GPU has no room for it.
        """
        self._library = library
        self._lock = threading.Lock()
        self._batch_sizes: dict[int, _BatchSize] = {}
        self._direct_batch_sizes: set[int] = set()
        self._complaints = complaints_of(library)
        with ExitStack() as stack:
            self._memory = Memory(stack)
            self._runtime, self._engine = deserialised(library, plan, path, carries_code)
            self._plan_bytes = len(plan)
            names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
            is_input = library.TensorIOMode.INPUT
            inputs = [name for name in names if self._engine.get_tensor_mode(name) == is_input]
            smallest, _, largest = self._engine.get_tensor_profile_shape(inputs[0], 0)
            self._smallest_batch, self._largest_batch = smallest[0], largest[0]
            buffers = {
                name: BorderBuffer(self._memory, self._spec(name), self._largest_batch) for name in names
            }
            self._inputs = {name: buffers[name] for name in inputs}
            self._outputs = {name: buffer for name, buffer in buffers.items() if name not in self._inputs}
            self.inputs = tuple(buffer.spec for buffer in self._inputs.values())
            self._scratch_bytes = scratch_bytes(self._engine)
            self._scratch = self._memory.on_device(self._scratch_bytes)
            self._configuration, self._cache = self._runtime_configuration(runtime_cache)
            self._direct_context = self._new_context()
            stack.callback(self._let_go)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Release the engine when no thread uses it any more."""
        with self._lock:
            super().close()

    @property
    def device_memory_mib(self) -> float:
        """Buffers, scratch memory, and the engine itself, which is counted by its file's size.

        CUDA's own context and what TensorRT holds for each captured batch size come on top.
        """
        return (self._memory.device_bytes + self._plan_bytes) / 2**20

    @property
    def captured_batch_sizes(self) -> frozenset[int]:
        """The batch sizes that run as a CUDA graph: those that were used, where they can be captured."""
        return frozenset(size for size, entry in self._batch_sizes.items() if entry.is_captured)

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """The outputs for one batch, as arrays of the host that are the caller's to keep.

        A batch over the largest that the engine was built for is run in parts. An input that offers itself by
        DLPack or ``__cuda_array_interface__`` is read where it lies on the GPU, if it begins at a multiple of
        256 bytes.

        Raises:
            EngineError: an input does not fit, the runner was closed, another thread uses it, or the GPU
                fails.
        """
        with self._alone():
            return super().infer(feeds)

    def _viewed(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
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
        """One part of a batch: `size` images from `start` on."""
        padded = max(size, self._smallest_batch)
        self._complaints.last = NO_REASON
        try:
            if any(isinstance(view, DeviceArray) for view in views.values()):
                self._run_in_place(views, start, size, padded)
            else:
                for name, view in views.items():
                    self._inputs[name].host[:size] = view[start : start + size]
                if padded not in self._batch_sizes:
                    self._batch_sizes[padded] = self._prepared(padded)
                self._batch_sizes[padded].run()
        finally:
            self._memory.wait()  # also after an error: the caller's arrays may be in use
        return {name: buffer.host[:size].copy() for name, buffer in self._outputs.items()}

    def _prepared(self, batch: int) -> _BatchSize:
        """What runs one batch size, from pinned memory to pinned memory."""
        context = self._new_context()
        self._set_batch(context, batch)

        def enqueue() -> None:
            for buffer in self._inputs.values():
                self._memory.copy_to_device(buffer.address, buffer.host[:batch])
            self._enqueue(context)
            for buffer in self._outputs.values():
                self._memory.copy_to_host(buffer.host[:batch], buffer.address)

        enqueue()  # TensorRT settles what depends on the batch size in a first run, which cannot be captured
        self._memory.wait()
        if self._cache:
            self._cache.save()
        launch = None
        if getattr(context, "is_stream_capturable", lambda _: True)(self._memory.stream):
            launch = capture(enqueue, self._memory.stream, self._stack)
        else:
            _LOGGER.warning("TensorRT says that batch %d cannot be captured as a CUDA graph", batch)
        return _BatchSize(context, launch or enqueue, is_captured=launch is not None)

    def _run_in_place(self, views: Mapping[str, Any], start: int, size: int, padded: int) -> None:
        """Enqueues a part of a batch of which some inputs are on the GPU already."""
        context = self._direct_context
        self._set_batch(context, padded)
        for name, view in views.items():
            buffer = self._inputs[name]
            if isinstance(view, DeviceArray):
                address = view.pointer + start * view.bytes_per_item
                if address % _ALIGNMENT or padded > size:
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
            raise EngineError(f"TensorRT cannot run the engine: {self._complaints.last}")

    def _set_batch(self, context: Any, batch: int) -> None:  # noqa: ANN401
        for name, buffer in (self._inputs | self._outputs).items():
            shape = (batch, *buffer.host.shape[1:])
            if name in self._inputs and not context.set_input_shape(name, shape):
                raise EngineError(f"TensorRT refuses batch {batch}: {self._complaints.last}")
            self._set_address(context, name, buffer.address)

    def _set_address(self, context: Any, name: str, address: int) -> None:  # noqa: ANN401
        if not context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refuses the memory of {name}: {self._complaints.last}")

    def _new_context(self) -> Any:  # noqa: ANN401
        """An execution context that uses the runner's scratch memory; its making differs between versions."""
        if self._configuration is not None:
            context = self._engine.create_execution_context(self._configuration)
        elif hasattr(self._library, "ExecutionContextAllocationStrategy"):
            strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
        else:
            context = self._engine.create_execution_context_without_device_memory()
        if context is None:
            raise EngineError(f"TensorRT cannot make a context: {self._complaints.last}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch, self._scratch_bytes)
        else:
            context.device_memory = self._scratch
        return context

    def _runtime_configuration(self, kept: Path | None) -> tuple[Any, RuntimeCache | None]:
        """TensorRT-RTX's own settings of a context, with its runtime cache; full TensorRT has none."""
        if kept is None:
            return None, None
        library = self._library
        configuration = self._engine.create_runtime_config()
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        configuration.set_execution_context_allocation_strategy(strategy)
        # Compiled at once, or the graph would hold the slower kernels that stand in for them meanwhile.
        specialization = library.DynamicShapesKernelSpecializationStrategy.EAGER
        configuration.dynamic_shapes_kernel_specialization_strategy = specialization
        return configuration, RuntimeCache(configuration, kept)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return TensorSpec(name, dtype.name, (None, *shape[1:]))

    def _let_go(self) -> None:
        """Drops contexts before the engine, as TensorRT asks."""
        self._batch_sizes.clear()
        self._direct_context = self._configuration = self._cache = None
        self._engine = self._runtime = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise EngineError("another thread uses this runner: give each thread one of its own")
        try:
            yield
        finally:
            self._lock.release()
