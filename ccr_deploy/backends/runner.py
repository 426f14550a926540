"""An engine in memory, and what it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
Outputs: TypeAlias = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that an engine takes: its name, NumPy type and shape, in which None stands for the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def check(self, array: npt.NDArray[np.generic]) -> None:
        """Raise an EngineError if `array` has another type or shape."""
        fits = len(array.shape) == len(self.shape) and all(
            wanted in (None, found) for wanted, found in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(self.dtype) or not fits or len(array) == 0:
            shape = ", ".join("N" if size is None else str(size) for size in self.shape)
            raise EngineError(
                f"input {self.name}: expected {self.dtype} [{shape}], found {array.dtype} {list(array.shape)}"
            )


class Runner(ABC):
    """An engine in memory. A context manager, for one thread at a time; once closed it raises.

    A subclass says how a batch is run whose tensors fit, and what is let go of at the end.
    """

    inputs: tuple[TensorSpec, ...]
    """What `infer` takes."""
    _closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def device_memory_mib(self) -> float | None:
        """What it holds of a GPU's memory; None if it computes on a CPU."""
        return None

    def close(self) -> None:
        """Release the engine; a second time nothing happens."""
        if not self._closed:
            self._closed = True
            self._close()

    def infer(self, feeds: Mapping[str, Any]) -> Outputs:
        """Return the outputs, by name, for the inputs, by name, of one batch; they are the caller's to keep.

        Raises:
            EngineError: an input has another name, type or shape, they are batches of different sizes, or the
                runner was closed.
        """
        if self._closed:
            raise EngineError("the runner was closed")
        views = self._viewed(feeds)
        check_feeds(views, self.inputs)
        return self._run(views)

    def _viewed(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs as arrays that have a type and a shape."""
        return feeds

    @abstractmethod
    def _run(self, feeds: Mapping[str, Any]) -> Outputs:
        """Return the outputs for a batch that was checked."""

    @abstractmethod
    def _close(self) -> None:
        """Release the engine; called once."""


def check_feeds(feeds: Arrays, inputs: tuple[TensorSpec, ...]) -> None:
    """Raise an EngineError if the feeds are not one batch of what the inputs say."""
    names = [spec.name for spec in inputs]
    if sorted(feeds) != sorted(names):
        raise EngineError(f"expected the inputs {', '.join(names)}, found {', '.join(feeds) or 'none'}")
    for spec in inputs:
        spec.check(feeds[spec.name])
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        raise EngineError(f"the inputs are batches of different sizes: {sorted(sizes)}")
