"""A stand-in for the Python package of TensorRT or TensorRT-RTX: no proof of what they do.

It has the calls that this project's runner uses, with the differences of the versions, and checks what their
documentation demands of the caller: the order of calls, shapes within the profile, aligned addresses, and a
first run before a capture. As in TensorRT's bindings, a context keeps its engine, and that its runtime.
"""

from __future__ import annotations

import enum
import json
import weakref
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from tests.support.tensorrt_stand_in.cuda import Owner
from tests.support.tensorrt_stand_in.kernels import (
    BIAS_BYTES,
    CODE_BYTES,
    IMAGE_BYTES,
    LOGITS,
    SUM_BYTES,
    Addresses,
    Kernels,
)

Version = Literal["8.6", "10.3", "11.4", "rtx"]
_ALIGNMENT = 256


class TensorIOMode(enum.Enum):
    """Whether a tensor is an input or an output."""

    INPUT = enum.auto()
    OUTPUT = enum.auto()


TENSORS = {
    "image": (TensorIOMode.INPUT, IMAGE_BYTES, np.uint8),
    "bias": (TensorIOMode.INPUT, BIAS_BYTES, np.uint8),
    "code": (TensorIOMode.OUTPUT, CODE_BYTES, np.uint8),
    "logits": (TensorIOMode.OUTPUT, LOGITS, np.float32),
}


def plan_of(*profiles: tuple[int, int]) -> bytes:
    """Return a plan for the stand-in, with the smallest and largest batch size of each profile."""
    return json.dumps(profiles).encode()


class ILogger:
    """The base of loggers."""

    class Severity(enum.Enum):
        """The severities that the stand-in uses."""

        INTERNAL_ERROR = 0
        ERROR = 1


class StandInLibrary:
    """The package: its classes and functions are attributes, as in a module."""

    ILogger = ILogger
    TensorIOMode = TensorIOMode

    def __init__(self, kernels: Kernels, version: Version = "10.3") -> None:
        """Offer what a version has.

        Args:
            kernels: launches the kernels of engines.
            version: the version of TensorRT, or TensorRT-RTX.
        """
        self.__version__ = "1.7.1.116" if version == "rtx" else version
        self.version = version
        self.kernels = kernels
        self.rejects: set[str] = set()
        """The calls that fail, by name."""
        if version != "8.6":
            self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
        if version == "rtx":
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def Runtime(self, logger: Any) -> _Runtime:  # noqa: N802
        return _Runtime(self, logger)

    def nptype(self, dtype: type) -> type:
        return dtype

    def accepts(self, call: str, logger: Any, reason: str = "the stand-in rejects it") -> bool:
        """Return whether a call succeeds; log an error if not."""
        if call in self.rejects:
            logger.log(ILogger.Severity.ERROR, f"{call}: {reason}")
        return call not in self.rejects

    def owner_of(self, thing: object, name: str) -> Owner:
        """Return the owner of an object's kernels, which notes when the object is destroyed."""
        owner = Owner(name)
        weakref.finalize(thing, self.kernels.destroy_owner, owner).atexit = False
        return owner


class _Runtime:
    def __init__(self, library: StandInLibrary, logger: Any) -> None:
        self._library, self._logger = library, logger
        library.owner_of(self, "runtime")

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        try:
            profiles = json.loads(plan)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "the plan has\nno header")
            return None
        kind = {"8.6": _Engine86, "rtx": _RtxEngine}.get(self._library.version, _Engine10)
        return kind(self._library, self._logger, self, profiles)


class _Engine:
    """What the engines of all versions have in common."""

    def __init__(
        self, library: StandInLibrary, logger: Any, runtime: _Runtime, profiles: list[list[int]]
    ) -> None:
        self.library, self.logger, self.profiles = library, logger, profiles
        self._runtime = runtime
        library.owner_of(self, "engine")
        self.num_io_tensors = len(TENSORS)
        self.num_optimization_profiles = len(profiles)
        self._scratch_bytes = SUM_BYTES * max(largest for _, largest in profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(TENSORS)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TENSORS[name][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, TENSORS[name][1])

    def get_tensor_dtype(self, name: str) -> type:
        return TENSORS[name][2]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        smallest, largest = self.profiles[index]
        return [(size, TENSORS[name][1]) for size in (smallest, largest, largest)]

    def _new(self, kind: type[_Context], cache: _RuntimeCache | None = None) -> _Context | None:
        if not self.library.accepts("create_execution_context", self.logger):
            return None
        return kind(self, cache)


class _Engine86(_Engine):
    """The engine of TensorRT 8.6."""

    @property
    def device_memory_size(self) -> int:
        return self._scratch_bytes

    def create_execution_context_without_device_memory(self) -> _Context | None:
        return self._new(_Context86)


class _Engine10(_Engine):
    """The engine of TensorRT 10 and 11."""

    @property
    def device_memory_size_v2(self) -> int:
        return self._scratch_bytes

    def create_execution_context(self, strategy: str) -> _Context | None:
        assert strategy == "user managed"
        return self._new(_Context10)


class _RtxEngine(_Engine):
    """The engine of TensorRT-RTX."""

    @property
    def device_memory_size_v2(self) -> int:
        return self._scratch_bytes

    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig()

    def create_execution_context(self, configuration: _RuntimeConfig) -> _Context | None:
        assert configuration.allocation == "user managed"
        assert configuration.dynamic_shapes_kernel_specialization_strategy == "eager"
        return self._new(_RtxContext, configuration.cache)


class _RuntimeCache:
    """The kernels that are compiled at run time, by name."""

    def __init__(self) -> None:
        self.compiled: list[str] = []

    def deserialize(self, content: bytes) -> bool:
        self.compiled = json.loads(content)
        return True

    def serialize(self) -> bytes:
        return json.dumps(self.compiled).encode()


class _RuntimeConfig:
    """The settings of TensorRT-RTX's contexts."""

    allocation = dynamic_shapes_kernel_specialization_strategy = ""
    cache: _RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache()

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self.cache = cache
        return True


class _Context:
    """What the execution contexts of all versions have in common."""

    def __init__(self, engine: _Engine, cache: _RuntimeCache | None) -> None:
        self._engine, self._cache = engine, cache
        self._library, self._logger, self._profiles = engine.library, engine.logger, engine.profiles
        self._owner = engine.library.owner_of(self, "context")
        self._profile = -1
        self._batches: dict[str, int] = {}
        self._addresses: dict[str, int] = {}
        self._initialized: set[int] = set()
        self._stream = 0
        self._scratch = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not 0 <= index < len(self._profiles):
            return self._error(f"there is no profile {index}")
        self._profile, self._stream = index, stream
        self._batches.clear()
        return self._library.accepts("set_optimization_profile_async", self._logger)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._profile < 0:
            return self._error("no profile is set")
        smallest, largest = self._profiles[self._profile]
        if not smallest <= shape[0] <= largest or shape[1:] != (TENSORS[name][1],):
            return self._error(f"{name}: {shape} is not in profile {self._profile}")
        self._batches[name] = shape[0]
        return self._library.accepts("set_input_shape", self._logger)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if not address or address % _ALIGNMENT:
            return self._error(f"{name}: {address:#x} is not a multiple of {_ALIGNMENT}")
        self._addresses[name] = address
        return self._library.accepts("set_tensor_address", self._logger)

    def execute_async_v3(self, stream: int) -> bool:
        if stream != self._stream:
            return self._error("the context is used in another stream than its profile was set in")
        inputs = {name for name, (mode, *_) in TENSORS.items() if mode is TensorIOMode.INPUT}
        if self._batches.keys() != inputs or len(set(self._batches.values())) != 1:
            return self._error("not all inputs have the same batch size")
        if self._addresses.keys() != TENSORS.keys() or not self._scratch:
            return self._error("not all tensors and the scratch memory have an address")
        batch = self._batches["image"]
        if self._library.kernels.is_capturing(stream) and batch not in self._initialized:
            return self._error("the first run of a batch size cannot be captured")
        if not self._library.accepts("execute_async_v3", self._logger):
            return False
        self._initialized.add(batch)
        kernel = f"batch {batch} of profile {self._profile}"
        if self._cache and kernel not in self._cache.compiled:
            self._cache.compiled.append(kernel)
        at = Addresses(**self._addresses, scratch=self._scratch)
        self._library.kernels.launch(stream, at, batch, self._owner)
        return True

    def _error(self, message: str) -> bool:
        self._logger.log(ILogger.Severity.ERROR, message)
        return False


class _Context86(_Context):
    """The context of TensorRT 8.6, in which the scratch memory is an attribute."""

    @property
    def device_memory(self) -> int:
        return self._scratch

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self._scratch = address


class _Context10(_Context):
    """The context of TensorRT 10 and 11."""

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= SUM_BYTES * max(largest for _, largest in self._profiles)
        self._scratch = address


class _RtxContext(_Context10):
    """The context of TensorRT-RTX."""

    def is_stream_capturable(self, _: int) -> bool:
        return "is_stream_capturable" not in self._library.rejects
