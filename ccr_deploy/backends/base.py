"""What every backend can do: build an engine, load it, run it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from ccr_deploy.core.control_groups import quota_cores
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.core.stages import Stage
    from ccr_deploy.targets.options import ResolvedTarget

    Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class TensorSpec:
    """A border tensor: its name, NumPy type and shape, in which None stands for the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def check(self, array: npt.NDArray[np.generic]) -> None:
        """Raises an EngineError where `array` has another type or shape."""
        fits = len(array.shape) == len(self.shape) and all(
            wanted in (None, found) for wanted, found in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(self.dtype) or not fits or len(array) == 0:
            shape = ", ".join("N" if size is None else str(size) for size in self.shape)
            raise EngineError(
                f"input {self.name}: expected {self.dtype} [{shape}], found {array.dtype} {list(array.shape)}"
            )


class Runner(Protocol):
    """An engine in memory. A context manager; after its end it raises."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` takes."""
        ...

    @property
    def device_memory_mib(self) -> float | None:
        """What it holds of a GPU's memory; None where it computes on a CPU."""
        ...

    def infer(self, feeds: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """The outputs, by name, for inputs, by name, of one batch.

        Raises:
            EngineError: an input has another name, type or shape, or the runner was closed.
        """
        ...


def _nobody_watches(_: int) -> None:
    pass


@dataclass(frozen=True)
class BuildSource:
    """What an engine is built from: a bundle's stage, and its graph (the reference has none)."""

    bundle: Bundle
    stage: Stage
    target: ResolvedTarget
    graph: Path | None
    caches: Path
    """Where a backend may keep what makes later builds faster; the folder may not exist yet."""
    advance: Advance = _nobody_watches
    """Told how many more of 100 units are done."""


class Backend(Protocol):
    """One inference library, with the options of a target."""

    @property
    def name(self) -> str:
        """As targets call it."""
        ...

    @property
    def suffix(self) -> str:
        """What its engines' file names end with."""
        ...

    @property
    def version(self) -> str:
        """The library's version that engines are bound to."""
        ...

    @property
    def device(self) -> str:
        """What engines are bound to: a processor's or GPU's name, or compute capabilities.

        Raises:
            EngineError: they are bound to a GPU, and there is none here.
        """
        ...

    @property
    def int8_weight_bits(self) -> Literal[7, 8]:
        """The bits that INT8 weights have in engines that are built here."""
        ...

    def check_builds_here(self) -> None:
        """Does nothing where this machine can build engines for these options.

        Raises:
            EngineError, MissingExtraError: it cannot.
        """
        ...

    def check_runs_here(self) -> None:
        """Does nothing where this machine can run the engines that are built for these options.

        Raises:
            EngineError, MissingExtraError: it cannot.
        """
        ...

    def check_precision(self, precision: EnginePrecision) -> None:
        """Does nothing where engines can compute so here.

        Raises:
            EngineError: the library or the processor cannot.
        """
        ...

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """The precisions that may be faster here than FP32, FP32 first."""
        ...

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Writes the engine to the path `engine`, and tells how it went.

        Raises:
            EngineError: the graph cannot be built.
        """
        ...

    def load(self, engine: Path, precision: EnginePrecision) -> Runner:
        """Loads an engine that `build` wrote for this precision.

        Raises:
            EngineError: the file is no such engine.
        """
        ...


def check_feeds(feeds: Arrays, inputs: tuple[TensorSpec, ...]) -> None:
    """Raises an EngineError where the feeds are not what the inputs say."""
    names = [spec.name for spec in inputs]
    if sorted(feeds) != sorted(names):
        raise EngineError(f"expected the inputs {', '.join(names)}, found {', '.join(feeds) or 'none'}")
    for spec in inputs:
        spec.check(feeds[spec.name])


def thread_count(threads: int = 0) -> int:
    """The number of `threads`, of which 0 are as many as the process may use.

    A container's limit counts: more threads than it allows are only stopped again and again.
    """
    if threads:
        return threads
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, quota_cores() or usable)
