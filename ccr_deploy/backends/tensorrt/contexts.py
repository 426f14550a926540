"""An engine in memory, and its execution contexts, which share one scratch memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ccr_deploy.backends.runner import TensorSpec
from ccr_deploy.backends.tensorrt.plan import NO_REASON, deserialize, error_logger, scratch_bytes
from ccr_deploy.backends.tensorrt.profiles import Profile, profiles_of
from ccr_deploy.backends.tensorrt.runtime_cache import RuntimeCache
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.backends.tensorrt.memory import Memory, Stream, TensorBuffer


class LoadedEngine:
    """A deserialized engine with the scratch memory of its contexts.

    The contexts share it: the kernels of one context have to be complete before another one's start.
    """

    def __init__(
        self,
        library: Any,  # noqa: ANN401 -- it has no types
        plan: bytes,
        path: Path,
        memory: Memory,
        *,
        runtime_cache: Path | None,
        allow_host_code: bool,
    ) -> None:
        """Deserialize a plan, and allocate the scratch memory.

        Args:
            library: TensorRT or TensorRT-RTX.
            plan: the content of the engine's file, already compared with its sidecar.
            path: the engine's file, for messages.
            memory: allocates the scratch memory.
            runtime_cache: the file in which TensorRT-RTX keeps compiled kernels; None for TensorRT.
            allow_host_code: whether the plan may execute the code that it contains.

        Raises:
            EngineError: if TensorRT rejects the plan, or the GPU's memory does not suffice.
        """
        self._library = library
        self._logger = error_logger(library)
        self._runtime, self._engine = deserialize(library, plan, path, allow_host_code=allow_host_code)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = library.TensorIOMode.INPUT
        specs = {name: self._spec(name) for name in names}
        self.inputs = tuple(
            spec for name, spec in specs.items() if self._engine.get_tensor_mode(name) == is_input
        )
        self.outputs = tuple(spec for spec in specs.values() if spec not in self.inputs)
        self.profiles = profiles_of(self._engine, self.inputs[0].name)
        self._scratch_bytes = scratch_bytes(self._engine)
        self._scratch = memory.on_device(self._scratch_bytes)
        self._configuration, self._cache = self._runtime_configuration(runtime_cache)

    def forget_errors(self) -> None:
        """Forget TensorRT's earlier errors, so that messages do not name them as the reason."""
        self._logger.last = NO_REASON

    def save_compiled_kernels(self) -> None:
        """Store the kernels that TensorRT-RTX has compiled since the last call."""
        if self._cache:
            self._cache.save()

    def new_context(self, profile: Profile, stream: Stream) -> Context:
        """Create an execution context for one profile.

        Args:
            profile: the profile.
            stream: the stream in which the context will run.

        Raises:
            EngineError: if TensorRT cannot create it, or rejects the profile.
        """
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
        if not context.set_optimization_profile_async(profile.index, stream.handle):
            raise EngineError(f"TensorRT rejects profile {profile.index}: {self._logger.last}")
        return Context(context, self._logger, stream)

    def release(self) -> None:
        """Release the engine, and then its runtime. All contexts must be released before."""
        self._configuration = self._cache = None
        self._engine = None
        self._runtime = None

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


class Context:
    """An execution context of one profile, which runs in one stream."""

    def __init__(self, context: Any, logger: Any, stream: Stream) -> None:  # noqa: ANN401
        self._context = context
        self._logger = logger
        self._stream = stream

    @property
    def is_capturable(self) -> bool:
        """Whether a run can be captured as a CUDA graph; versions that cannot tell are tried."""
        return bool(getattr(self._context, "is_stream_capturable", lambda _: True)(self._stream.handle))

    def bind(
        self, batch: int, inputs: Mapping[str, TensorBuffer], outputs: Mapping[str, TensorBuffer]
    ) -> None:
        """Set the batch size and the buffers on the GPU of later runs.

        Args:
            batch: the batch size.
            inputs: the buffer of each input.
            outputs: the buffer of each output.

        Raises:
            EngineError: if TensorRT rejects the size or an address.
        """
        for name, buffer in inputs.items():
            if not self._context.set_input_shape(name, (batch, *buffer.item_shape)):
                raise EngineError(f"TensorRT rejects batch {batch}: {self._logger.last}")
        for name, buffer in {**inputs, **outputs}.items():
            self.set_address(name, buffer.address)

    def set_address(self, name: str, address: int) -> None:
        """Set the address of one tensor on the GPU, a multiple of 256.

        Raises:
            EngineError: if TensorRT rejects it.
        """
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT rejects the memory of {name}: {self._logger.last}")

    def enqueue(self) -> None:
        """Enqueue the kernels in the stream.

        Raises:
            EngineError: if TensorRT cannot run the engine.
        """
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT cannot run the engine: {self._logger.last}")
