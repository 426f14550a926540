"""The interface of a backend: build an engine, and load it. The smallest backend has a few lines."""

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
    """The weights that the PyTorch reference runs instead of a graph: a file, and the configuration.

    The names of the stage's own weights begin with `prefix`.
    """

    path: Path
    prefix: str
    model: ModelConfig
    preprocessing: Preprocessing


@dataclass(frozen=True, kw_only=True)
class BuildSource:
    """The inputs and settings of one build. Fields that take time to compute are callables.

    `schedule` is None except for an encoder, `graph` is None for the PyTorch reference, and `batch` is None
    for backends without batch profiles. `input_shapes` holds the shape of each input by name, without the
    batch dimension.
    """

    stage: Stage
    precision: EnginePrecision
    schedule: Schedule | None
    batch: Batch | None
    graph: Path | None
    input_shapes: Mapping[str, tuple[int, ...]]
    samples: Callable[[], Arrays]
    """A few realistic inputs, on which the engine is compared with its graph."""
    graph_in: Callable[[Precision], Path]
    """Return the file of the same graph in another precision."""
    weights: Callable[[], Weights]
    other_schedules: tuple[Schedule, ...]
    """The other schedules for which the bundle has graphs of this stage in this precision."""
    caches: Path
    """A folder for caches that make later builds faster; it may not exist yet."""
    advance: Advance = lambda _: None
    """Called with the number of units, of 100 in all, that have been completed since the last call."""


@dataclass(frozen=True)
class EngineFile:
    """An engine that `build` wrote, with data from its sidecar.

    `library_version` is the version that built it. `read` returns the file's bytes after comparing their
    SHA-256 with the sidecar's, for libraries that load engines from bytes.
    """

    path: Path
    precision: EnginePrecision
    library_version: str | None = None
    read: Callable[[Path], bytes] = Path.read_bytes


@dataclass(frozen=True)
class Standalone:
    """A graph that a script runs with the backend's library alone.

    `graph` is the content of an ONNX file. `source` defines ``run(graph, inputs)``, which takes the path of
    that file and the inputs by name, and returns the outputs by name. `packages` are the distributions that
    it imports.
    """

    graph: bytes
    source: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class BuiltFrom:
    """The inputs and settings that an engine was built from, according to its sidecar and its bundle.

    `graph` returns the file of its graph.
    """

    options: BackendOptions
    precision: EnginePrecision
    batch: Batch | None
    library_version: str | None
    graph: Callable[[], Path]
    input_shapes: Mapping[str, tuple[int, ...]]


class Backend(ABC):
    """One inference library, with the options of a target.

    The class attributes are available without the library, which the constructor imports. The defaults are
    those of a library that computes in FP32 on a CPU.
    """

    title: ClassVar[str]
    """The library's name in messages."""
    suffix: ClassVar[str]
    """The suffix of engine files."""
    options_class: ClassVar[type[BackendOptions]]
    """The record of its options, whose tag is the backend's name."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The Python distributions whose versions `doctor` lists."""
    is_reference: ClassVar[bool] = False
    """Whether it runs the checkpoint's weights instead of a graph; engines are compared with it."""
    has_batch_profiles: ClassVar[bool] = False
    """Whether engines are built for a range of batch sizes, which a target names."""
    has_machines: ClassVar[bool] = False
    """Whether a target names the machines that its engines are built and run on."""

    revisions: ClassVar[Mapping[EnginePrecision, int]] = MappingProxyType({})
    """The revision of its engines by precision, 1 if not listed.

    A release that builds a different engine from the same graph raises it, so that older engines are rebuilt.
    """
    options: BackendOptions
    version: str
    """The version of the library."""

    @abstractmethod
    def __init__(self, options: BackendOptions) -> None:
        """Import the library, and store the options and the library's version.

        Raises:
            MissingExtraError: if the library is not installed.
            EngineError: if its version is not supported.
        """

    @abstractmethod
    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Build the engine, write it to the path `engine`, and return facts about the build.

        Raises:
            EngineError: if the graph cannot be built.
        """

    @abstractmethod
    def load(self, engine: EngineFile) -> Runner:
        """Load an engine that `build` wrote.

        Raises:
            EngineError: if the file is not an engine of this backend.
        """

    def compile(self, source: BuildSource, folder: Path) -> Runner:
        """Build an engine for diagnosis, from a graph that may have other outputs, and load it.

        A backend whose `build` compares the engine with its graph overrides this to omit the comparison, so
        that a wrong engine can be examined.

        Args:
            source: the inputs of the build.
            folder: a temporary folder, for an engine that has to be a file.

        Raises:
            EngineError: if the graph cannot be built or run.
        """
        engine = folder / f"engine{self.suffix}"
        facts = self.build(source, engine)
        return self.load(EngineFile(engine, source.precision, facts.library_version))

    def standalone(self, graph: Path, precision: EnginePrecision) -> Standalone:  # noqa: ARG002
        """Return a graph and the Python source that runs it as `compile` does, without this project.

        Args:
            graph: the graph.
            precision: the precision of the engine.

        Raises:
            WrongUsageError: if the backend has no such source.
        """
        raise WrongUsageError(f"--reduce does not support {self.title}: choose a target for a CPU")

    @property
    def name(self) -> str:
        """The name of the backend in targets."""
        return self.options.backend

    @property
    def bound_version(self) -> str:
        """The library version that engines are bound to, or the part of it that has to match."""
        return self.options.bound_version(self.version)

    @property
    def device(self) -> str:
        """The device that engines are bound to: a processor's or GPU's name, or compute capabilities.

        Raises:
            EngineError: if they are bound to a GPU and this machine has none.
        """
        return processor_device()

    @property
    def int8_weight_bits(self) -> Literal[7, 8]:
        """The number of bits of INT8 weights in engines that are built on this machine."""
        return 8

    def check_machine(self, target: str, machine: Machine | None) -> None:
        """Raise an error if this machine is not one of those that a target names.

        Args:
            target: the target's name.
            machine: the machines that it names; None if it names none.

        Raises:
            WrongUsageError: if the GPU or the library's version does not match, if there is no GPU, or if
                cuda-python, which looks for GPUs, is not installed.
        """
        if machine is None:
            return
        try:
            gpu = find_gpu()
        except CcrDeployError as error:
            raise WrongUsageError(
                f"the target {target} must be built on the machine that runs it "
                f"({' or '.join(machine.gpus)}), but {error}: build it there, or choose another target "
                "(ccr-deploy doctor lists those that fit)"
            ) from error
        check_fits(target, machine, gpu, self.title, self.version)

    def check_builds_here(self) -> None:
        """Raise an error if this machine cannot build engines for these options.

        Raises:
            EngineError, MissingExtraError: if it cannot.
        """
        self.check_runs_here()

    def check_runs_here(self) -> None:  # noqa: B027 -- a CPU runs the engines that were built on it
        """Raise an error if this machine cannot run the engines that are built for these options.

        Raises:
            EngineError, MissingExtraError: if it cannot.
        """

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32, then the precisions that may be faster than FP32 on this machine."""
        return ("fp32",)

    def check_precision(self, precision: EnginePrecision) -> None:
        """Raise an error if engines on this machine cannot compute in a precision.

        Raises:
            EngineError: if the library or the processor does not support it.
        """
        known = self.native_precisions()
        if precision not in known:
            choices = " or ".join(name.upper() for name in known)
            raise EngineError(f"{self.title} does not support {precision.upper()}: choose {choices}")

    @classmethod
    def reproduction(cls, engine: Path, built: BuiltFrom) -> list[str]:
        """Return shell commands that rebuild an engine, and run it, with the library's own tools.

        Args:
            engine: the engine's file.
            built: the inputs and settings that it was built from.

        Raises:
            WrongUsageError: if the library has no such tools.
        """
        raise WrongUsageError(
            f"{engine}: built by {built.options.backend}: {cls.title} has no command-line tools that build "
            "and run engines"
        )
