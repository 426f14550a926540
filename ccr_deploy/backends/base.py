"""What every backend can do: build an engine and load it. One of a few lines is a whole backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from ccr_deploy.backends.machine import Machine, check_fits
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.processor import processor_device
from ccr_deploy.errors import CcrDeployError, EngineError, WrongUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.backends.options import BackendOptions, Batch
    from ccr_deploy.backends.runner import Arrays, Runner
    from ccr_deploy.codec.contract import Preprocessing
    from ccr_deploy.core.precisions import EnginePrecision, Precision
    from ccr_deploy.core.progress import Advance
    from ccr_deploy.core.stages import Schedule, Stage
    from ccr_deploy.models.config import ModelConfig


@dataclass(frozen=True)
class Weights:
    """What the reference is made from instead of a graph: a file of weights and the model that has them.

    The names of the stage's own weights begin with `prefix`.
    """

    path: Path
    prefix: str
    model: ModelConfig
    preprocessing: Preprocessing


@dataclass(frozen=True, kw_only=True)
class BuildSource:
    """What a stage's engine is built from, and how; what costs time to get is got by a call.

    Only an encoder has a schedule, and the reference has no graph. A `batch` is there for the backends that
    have batch profiles. `input_shapes` are those of the inputs behind the batch, by name.
    """

    stage: Stage
    precision: EnginePrecision
    schedule: Schedule | None
    batch: Batch | None
    graph: Path | None
    input_shapes: Mapping[str, tuple[int, ...]]
    samples: Callable[[], Arrays]
    """A few inputs as they occur, to compare the engine on."""
    graph_in: Callable[[Precision], Path]
    """The same graph in another precision."""
    weights: Callable[[], Weights]
    other_schedules: tuple[Schedule, ...]
    """Those that the stage has graphs of, in this precision, beside its own."""
    caches: Path
    """Where a backend may keep what makes later builds faster; the folder may not exist yet."""
    advance: Advance = lambda _: None
    """Told how many more of 100 units are done."""


@dataclass(frozen=True)
class EngineFile:
    """An engine that `build` wrote, and what its sidecar says of it.

    `library_version` built it. `read` returns the file's bytes after they were compared with the sidecar, for
    libraries that take bytes.
    """

    path: Path
    precision: EnginePrecision
    library_version: str | None = None
    read: Callable[[Path], bytes] = Path.read_bytes


@dataclass(frozen=True)
class BuiltFrom:
    """What an engine was built from and with, as its sidecar and its bundle tell; `graph` gets its graph."""

    options: BackendOptions
    precision: EnginePrecision
    batch: Batch | None
    library_version: str | None
    graph: Callable[[], Path]
    input_shapes: Mapping[str, tuple[int, ...]]


class Backend(ABC):
    """One inference library, with the options of a target.

    What is known of the class is known without the library, which an object imports when it is made. The
    defaults are those of a library that computes in FP32 on a CPU.
    """

    title: ClassVar[str]
    """The library's name in messages."""
    suffix: ClassVar[str]
    """What the file names of engines end with."""
    options_class: ClassVar[type[BackendOptions]]
    """The record of its options, whose tag is the backend's name."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The distributions whose versions matter to it."""
    is_reference: ClassVar[bool] = False
    """Whether it runs the weights themselves, which engines are compared with, instead of a graph."""
    has_batch_profiles: ClassVar[bool] = False
    """Whether engines are built for certain batches, which a target names."""
    has_machines: ClassVar[bool] = False
    """Whether a target names the machines that its engines are built and run on."""

    revisions: ClassVar[Mapping[EnginePrecision, int]] = MappingProxyType({})
    """By precision, 1 if it is not there: raised when a release builds another engine from the same graph."""
    options: BackendOptions
    version: str
    """The library's."""

    @abstractmethod
    def __init__(self, options: BackendOptions) -> None:
        """Import the library, and keep the options and its version.

        Raises:
            MissingExtraError: it is not installed.
            EngineError: it is of a version that this project cannot use.
        """

    @abstractmethod
    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Write the engine to the path `engine`, and tell how it went.

        Raises:
            EngineError: the graph cannot be built.
        """

    @abstractmethod
    def load(self, engine: EngineFile) -> Runner:
        """Load an engine that `build` wrote.

        Raises:
            EngineError: the file is no such engine.
        """

    @property
    def name(self) -> str:
        """As targets call it."""
        return self.options.backend

    @property
    def bound_version(self) -> str:
        """What of the library's version engines are bound to."""
        return self.options.bound_version(self.version)

    @property
    def device(self) -> str:
        """What engines are bound to: a processor's or GPU's name, or compute capabilities.

        Raises:
            EngineError: they are bound to a GPU, and there is none here.
        """
        return processor_device()

    @property
    def int8_weight_bits(self) -> Literal[7, 8]:
        """The bits that INT8 weights have in engines that are built here."""
        return 8

    def check_machine(self, target: str, machine: Machine | None) -> None:
        """Raise an error if this is not one of the machines that a target names.

        Args:
            target: the target's name.
            machine: the machines that it names; None if it names none.

        Raises:
            WrongUsageError: the GPU or the library's version is another, or there is no GPU, or nobody can
                look for one.
        """
        if machine is None:
            return
        try:
            gpu = find_gpu()
        except CcrDeployError as error:
            raise WrongUsageError(
                f"the target {target} is built where it runs, on {' or '.join(machine.gpus)}, but {error}: "
                "go there, or choose another target (ccr-deploy doctor shows what fits)"
            ) from error
        check_fits(target, machine, gpu, self.title, self.version)

    def check_builds_here(self) -> None:
        """Raise an error if this machine cannot build engines for these options.

        Raises:
            EngineError, MissingExtraError: it cannot.
        """
        self.check_runs_here()

    def check_runs_here(self) -> None:  # noqa: B027 -- a CPU runs what was built on it
        """Raise an error if this machine cannot run the engines that are built for these options.

        Raises:
            EngineError, MissingExtraError: it cannot.
        """

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return the precisions that may be faster here than FP32, FP32 first."""
        return ("fp32",)

    def check_precision(self, precision: EnginePrecision) -> None:
        """Raise an error if engines cannot compute so here.

        Raises:
            EngineError: the library or the processor cannot.
        """
        known = self.native_precisions()
        if precision not in known:
            choices = " or ".join(name.upper() for name in known)
            raise EngineError(f"{self.title} has no {precision.upper()}: choose {choices}")

    @classmethod
    def reproduction(cls, engine: Path, built: BuiltFrom) -> list[str]:
        """Return shell commands that build an engine anew, and run it, with its library's own tools.

        Args:
            engine: the engine's file.
            built: what it was built from.

        Raises:
            WrongUsageError: the library has no such tools.
        """
        raise WrongUsageError(
            f"{engine}: built by {built.options.backend}: {cls.title} has no tools that build and run engines"
        )
