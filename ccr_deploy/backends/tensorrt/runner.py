"""An engine in memory.

Buffers on the GPU and pinned on the host are allocated once, for the largest batch. Each batch size gets, on
its first use, an execution context of its own and a CUDA graph of copies in, kernels and copies out; the
contexts share one scratch memory, since only one of them runs at a time. `infer` waits once, at its end.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.base import TensorSpec, check_feeds
from ccr_deploy.backends.tensorrt.cuda_graph import capture
from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray, is_device_array, view_of
from ccr_deploy.backends.tensorrt.memory import BorderBuffer, Memory
from ccr_deploy.backends.tensorrt.runtime_cache import RuntimeCache
from ccr_deploy.errors import EngineError
from ccr_deploy.gpu import find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

_ALIGNMENT = 256
"""TensorRT wants its tensors to begin at multiples of it."""


class TensorRtRunner:
    """A deserialised engine with its buffers and its stream. A context manager, for one thread at a time."""

    def __init__(self, library: Any, plan: bytes, path: Path) -> None:  # noqa: ANN401 -- it has no types
        """Deserialises the `plan` that was read from `path`; both were checked before.

        Raises:
            EngineError: TensorRT refuses the plan, or the GPU has no room for it.
        """
        self._library = library
        self._lock = threading.Lock()
        self._launches: dict[int, Callable[[], None]] = {}
        with ExitStack() as stack:
            self._memory = Memory(stack)
            self._runtime, self._engine, self._complaints = _deserialised(library, plan, path)
            self._plan_bytes = len(plan)
            names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
            inputs = [name for name in names if self._is_input(name)]
            smallest, _, largest = self._engine.get_tensor_profile_shape(inputs[0], 0)
            self._smallest_batch, self._largest_batch = smallest[0], largest[0]
            buffers = {
                name: BorderBuffer(self._memory, self._spec(name), self._largest_batch) for name in names
            }
            self._inputs = {name: buffers[name] for name in inputs}
            self._outputs = {name: buffer for name, buffer in buffers.items() if name not in self._inputs}
            self.inputs = tuple(buffer.spec for buffer in self._inputs.values())
            self._scratch_bytes = _scratch_bytes(self._engine)
            self._scratch = self._memory.on_device(self._scratch_bytes)
            self._configuration, self._cache = self._runtime_configuration(path)
            self._direct_context = self._new_context()
            stack.callback(self._let_go)
            self._stack = stack.pop_all()

    def __enter__(self) -> TensorRtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._alone():
            self._stack.close()

    @property
    def device_memory_mib(self) -> float:
        """Buffers, scratch memory, and the engine itself, which is counted by its file's size."""
        return (self._memory.device_bytes + self._plan_bytes) / 2**20

    def infer(self, feeds: Mapping[str, Any]) -> dict[str, npt.NDArray[np.generic]]:
        """The outputs for one batch, as arrays of the host that are the caller's to keep.

        A batch over the largest that the engine was built for is run in parts. An input that offers itself by
        DLPack or ``__cuda_array_interface__`` is read where it lies on the GPU, if it begins at a multiple of
        256 bytes.

        Raises:
            EngineError: an input does not fit, the runner was closed, another thread uses it, or the GPU
                fails.
        """
        with self._alone():
            if self._engine is None:
                raise EngineError("the runner was closed")
            views: dict[str, Any] = {
                name: view_of(name, array, self._memory.stream) if is_device_array(array) else array
                for name, array in feeds.items()
            }
            check_feeds(views, self.inputs)
            (size,) = {len(view) for view in views.values()}
            parts = [
                self._run(views, start, min(self._largest_batch, size - start))
                for start in range(0, size, self._largest_batch)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, views: Mapping[str, Any], start: int, size: int) -> dict[str, npt.NDArray[np.generic]]:
        """One part of a batch: `size` images from `start` on."""
        padded = max(size, self._smallest_batch)
        if any(isinstance(view, DeviceArray) for view in views.values()):
            self._run_in_place(views, start, size, padded)
        else:
            for name, view in views.items():
                self._inputs[name].host[:size] = view[start : start + size]
            if padded not in self._launches:
                self._launches[padded] = self._captured(padded)
            self._launches[padded]()
        self._memory.wait()
        return {name: buffer.host[:size].copy() for name, buffer in self._outputs.items()}

    def _captured(self, batch: int) -> Callable[[], None]:
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
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(self._memory.stream):
            return enqueue
        return capture(enqueue, self._memory.stream, self._stack)

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
                    context.set_tensor_address(name, address)
            else:
                buffer.host[:size] = view[start : start + size]
                self._memory.copy_to_device(buffer.address, buffer.host[:padded])
        self._enqueue(context)
        for buffer in self._outputs.values():
            self._memory.copy_to_host(buffer.host[:padded], buffer.address)

    def _enqueue(self, context: Any) -> None:  # noqa: ANN401
        if not context.execute_async_v3(self._memory.stream):
            raise EngineError(
                f"TensorRT cannot run the engine: {self._complaints.last or 'it gives no reason'}"
            )

    def _set_batch(self, context: Any, batch: int) -> None:  # noqa: ANN401
        for name, buffer in (self._inputs | self._outputs).items():
            shape = (batch, *buffer.host.shape[1:])
            if name in self._inputs and not context.set_input_shape(name, shape):
                raise EngineError(f"TensorRT refuses batch {batch}: {self._complaints.last}")
            context.set_tensor_address(name, buffer.address)

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
            raise EngineError(
                f"TensorRT cannot make a context: {self._complaints.last or 'it gives no reason'}"
            )
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._scratch, self._scratch_bytes)
        else:
            context.device_memory = self._scratch
        return context

    def _runtime_configuration(self, path: Path) -> tuple[Any, RuntimeCache | None]:
        """TensorRT-RTX's own settings of a context, with its runtime cache; full TensorRT has none."""
        library = self._library
        if not hasattr(library, "IRuntimeCache"):
            return None, None
        configuration = self._engine.create_runtime_config()
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        configuration.set_execution_context_allocation_strategy(strategy)
        # Compiled at once, or the graph would hold the slower kernels that stand in for them meanwhile.
        specialization = library.DynamicShapesKernelSpecializationStrategy.EAGER
        configuration.dynamic_shapes_kernel_specialization_strategy = specialization
        capability = find_gpu().compute_capability
        return configuration, RuntimeCache(configuration, path.with_name(f"{path.name}.{capability}.cache"))

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT)

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return TensorSpec(name, dtype.name, (None, *shape[1:]))

    def _let_go(self) -> None:
        """Drops contexts before the engine, as TensorRT asks."""
        self._launches.clear()
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


def _deserialised(library: Any, plan: bytes, path: Path) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """TensorRT's runtime, the engine of a plan, and the logger that keeps TensorRT's last complaint."""

    class Complaints(library.ILogger):  # type: ignore[misc] # imported by name
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last: str | None = None

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity in {library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR}:
                self.last = " ".join(message.split())[:500]

    complaints = Complaints()
    runtime = library.Runtime(complaints)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # version-compatible plans carry the runtime that reads them
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        reason = complaints.last or "it gives no reason"
        raise EngineError(f"{path}: TensorRT {library.__version__} cannot load it ({reason})")
    return runtime, engine, complaints


def _scratch_bytes(engine: Any) -> int:  # noqa: ANN401
    """What all contexts share; TensorRT before 10.1 has only the older name."""
    return int(
        engine.device_memory_size_v2
        if hasattr(engine, "device_memory_size_v2")
        else engine.device_memory_size
    )
