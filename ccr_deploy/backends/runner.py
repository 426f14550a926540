"""An engine in memory, and its input tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self

    from ccr_deploy.backends.device_timer import DeviceTimer

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
Outputs: TypeAlias = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class TensorSpec:
    """An input of an engine: its name, NumPy type and shape, in which None is the batch dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def check(self, array: npt.NDArray[np.generic]) -> None:
        """Raise an EngineError if the type or shape of `array` does not match, or cannot be read."""
        shape = ", ".join("N" if size is None else str(size) for size in self.shape)
        expected = f"input {self.name}: expected {self.dtype} [{shape}], found"
        try:
            found_type, found_shape = array.dtype, tuple(array.shape)
        except Exception as error:  # not an array, or one of a library that may raise any error
            raise EngineError(f"{expected} {type(array).__name__} ({error})") from error
        fits = len(found_shape) == len(self.shape) and all(
            wanted in (None, found) for wanted, found in zip(self.shape, found_shape, strict=True)
        )
        if found_type != np.dtype(self.dtype) or not fits or found_shape[:1] == (0,):
            raise EngineError(f"{expected} {found_type} {list(found_shape)}")


class Runner(ABC):
    """An engine in memory: a context manager, for one thread at a time.

    A subclass runs a checked batch in `_run` and releases its resources in `_close`.
    """

    inputs: tuple[TensorSpec, ...]
    """The input tensors of `infer`."""
    device_timer: DeviceTimer | None = None
    """If set, it measures `infer` on the GPU; runners that do not know their stream ignore it."""
    _closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def device_memory_mib(self) -> float | None:
        """The GPU memory that it holds, in MiB; None if it computes on a CPU."""
        return None

    def close(self) -> None:
        """Release the engine; later calls have no effect."""
        if not self._closed:
            self._closed = True
            self._close()

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """Run one batch of inputs, by name, and return the outputs by name.

        The outputs are new arrays: later calls do not overwrite them.

        Raises:
            EngineError: if the name, type or shape of an input does not match, if the batch sizes differ, or
                if the runner is closed.
        """
        if self._closed:
            raise EngineError("the runner is closed")
        views = self._views(feeds)
        check_feeds(views, self.inputs)
        return self._run(views)

    def on_device(self, feeds: Arrays) -> Callable[[], None] | None:  # noqa: ARG002
        """Copy one batch of inputs to the GPU, and return a function that runs it there and waits for it.

        The outputs stay on the GPU, so that a call takes the time of a run without copies; `device_timer`
        measures it too. The function is valid until the runner is closed; `infer` may change its input.

        Args:
            feeds: inputs by name, as for `infer`.

        Returns:
            The function; None on a CPU, and if the runner cannot separate a run from its copies.
        """
        return None

    def _views(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs as objects that have a NumPy type and a shape."""
        return feeds

    @abstractmethod
    def _run(self, feeds: Mapping[str, Any]) -> Outputs:
        """Return the outputs for a checked batch."""

    @abstractmethod
    def _close(self) -> None:
        """Release the engine; called once."""


def check_feeds(feeds: Arrays, inputs: tuple[TensorSpec, ...]) -> None:
    """Raise an EngineError if `feeds` are not one batch of `inputs`."""
    names = [spec.name for spec in inputs]
    if sorted(feeds) != sorted(names):
        raise EngineError(f"expected the inputs {', '.join(names)}, found {', '.join(feeds) or 'none'}")
    for spec in inputs:
        spec.check(feeds[spec.name])
    # Libraries report this less clearly, or not at all.
    sizes = {len(feeds[spec.name]) for spec in inputs if spec.shape[:1] == (None,)}
    if len(sizes) > 1:
        raise EngineError(f"the inputs are batches of different sizes: {sorted(sizes)}")
