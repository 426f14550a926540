"""The two backends: what engines are bound to, and the checks before an engine's bytes reach TensorRT."""

from __future__ import annotations

import importlib.util
import re
from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from ccr_deploy.backends.base import Backend, BuildSource, BuiltFrom, EngineFile, Standalone
from ccr_deploy.backends.tensorrt.flavour import RTX, TENSORRT, Flavour, extra_of, import_library
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.backends.tensorrt.reproduce import reproduction
from ccr_deploy.core.gpu import Gpu, cuda_runtime, find_gpu
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError, WrongUsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
    from ccr_deploy.core.precisions import EnginePrecision


class _AnyTensorRtBackend(Backend):
    """The common part of both flavours."""

    flavour: ClassVar[Flavour]
    suffix = ".plan"
    packages = ("tensorrt", "tensorrt-cu12", "tensorrt-rtx", "polygraphy", "cuda-bindings")
    has_batch_profiles = True
    options: TensorRtOptions | RtxOptions

    def __init__(self, options: TensorRtOptions | RtxOptions) -> None:
        """Import the flavour's library.

        Raises:
            MissingExtraError: if it is not installed.
            EngineError: if its version is not supported.
        """
        self.options = options
        self._library = import_library(self.flavour)
        self.version = str(self._library.__version__)

    def check_builds_here(self) -> None:
        """Raise an error if Polygraphy is not installed, or if engines are bound to a GPU and there is none.

        Raises:
            EngineError: if there is no GPU.
            MissingExtraError: if Polygraphy or cuda-python is not installed.
        """
        if importlib.util.find_spec("polygraphy") is None:
            raise MissingExtraError("polygraphy", extra_of(self.flavour), f"building with {self.title}")
        self.device  # noqa: B018 -- raises if a GPU is needed and there is none

    def check_runs_here(self) -> None:
        """Raise an error if the target's engines are not for this machine's GPU.

        Raises:
            EngineError: if they are not, or there is no GPU.
            MissingExtraError: if cuda-python is not installed.
        """
        gpu = find_gpu()
        if not self._fits(gpu):
            raise EngineError(
                f"the target's engines are for {self.device}, this machine has {gpu}: choose another target "
                "(ccr-deploy doctor lists those that fit)"
            )

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32, FP16 and INT8: the precisions that a bundle has graphs of."""
        return ("fp32", "fp16", "int8")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Build the engine in a separate process.

        Raises:
            EngineError: if the graph cannot be built, or the builder's process crashed.
        """
        from ccr_deploy.backends.tensorrt.builder import build
        from ccr_deploy.backends.tensorrt.messages import BuildRequest

        assert source.graph is not None
        assert source.batch is not None
        request = BuildRequest(
            graph=source.graph,
            engine=engine,
            options=self.options,
            precision=source.precision,
            batch=source.batch,
            input_shapes=dict(source.input_shapes),
            timing_cache=self._timing_cache(source.caches),
            can_run=self._can_run(),
            fp16_graph=self._compared_graph(source),
        )
        return build(request, source.advance)

    def load(self, engine: EngineFile) -> TensorRtRunner:
        """Load an engine, after its bytes were compared with its sidecar.

        Raises:
            EngineError: if it was built by a later version, cannot run on this machine, or TensorRT rejects
                it.
        """
        from ccr_deploy.backends.tensorrt.runner import TensorRtRunner

        if version_numbers(engine.library_version or "") > version_numbers(self.version):
            raise EngineError(
                f"{engine.path}: built by {self.title} {engine.library_version}, this machine has "
                f"{self.version}, but a version-compatible engine runs only in later versions: "
                "run ccr-deploy build-engine on this machine"
            )
        # Compared before TensorRT deserializes it, because an engine contains code that runs in this process.
        plan = engine.read(engine.path)
        try:
            self.check_runs_here()
        except CcrDeployError as error:
            raise EngineError(f"{engine.path}: cannot run on this machine: {error}") from error
        return TensorRtRunner(
            self._library,
            cuda_runtime(),
            plan,
            engine.path,
            runtime_cache=self._runtime_cache(engine.path),
            allow_host_code=self._allows_host_code,
        )

    def standalone(self, graph: Path, precision: EnginePrecision) -> Standalone:  # noqa: ARG002
        """Refuse: Polygraphy reduces graphs for TensorRT.

        Raises:
            WrongUsageError: always; the message names Polygraphy's command.
        """
        raise WrongUsageError(
            f"--reduce does not support {self.title}: run polygraphy debug reduce, with the polygraphy run "
            "command that ccr-deploy inspect ENGINE --reproduce prints as its check"
        )

    @classmethod
    def reproduction(cls, engine: Path, built: BuiltFrom) -> list[str]:
        """Return commands of trtexec and Polygraphy that rebuild and run an engine."""
        return reproduction(engine, built)

    @abstractmethod
    def _fits(self, gpu: Gpu) -> bool:
        """Return whether the engines are built for a GPU."""

    @property
    def _allows_host_code(self) -> bool:
        """Whether engines contain host code: the runtime that executes a version-compatible engine."""
        return False

    def _timing_cache(self, caches: Path) -> Path | None:  # noqa: ARG002
        """Return the path of the builder's timing cache; None if there is none."""
        return None

    def _runtime_cache(self, engine: Path) -> Path | None:  # noqa: ARG002
        """Return the path of the runtime's cache of compiled kernels; None if there is none."""
        return None

    def _compared_graph(self, source: BuildSource) -> Path | None:  # noqa: ARG002
        """Return the FP16 graph whose kernels an INT8 engine is compared with; None if they are not known."""
        return None

    def _can_run(self) -> bool:
        try:
            self.check_runs_here()
        except CcrDeployError:
            return False
        return True


class TensorRtBackend(_AnyTensorRtBackend):
    """Build and run engines with TensorRT, on the GPU that they are built for."""

    flavour = TENSORRT
    title = TENSORRT.title
    options_class = TensorRtOptions
    has_machines = True
    options: TensorRtOptions

    @property
    def device(self) -> str:
        """The GPUs that engines run on: this model, those of its compute capability, or all since Ampere.

        Raises:
            EngineError: if there is no GPU.
            MissingExtraError: if cuda-python is not installed.
        """
        gpu = find_gpu()
        levels = {
            "none": str(gpu),
            "same-compute-capability": f"compute capability {gpu.compute_capability}",
            "ampere-plus": "compute capability 8.0 or later",
        }
        return levels[self.options.hardware_compatibility]

    @property
    def _allows_host_code(self) -> bool:
        return self.options.version_compatible

    def _fits(self, gpu: Gpu) -> bool:
        is_limited = self.options.hardware_compatibility == "ampere-plus"
        return not is_limited or version_numbers(gpu.compute_capability) >= (8, 0)

    def _timing_cache(self, caches: Path) -> Path | None:
        """Return one file per GPU model and TensorRT version: timings of one are not valid for another."""
        if not self.options.timing_cache:
            return None
        return caches / f"timing.{_slug(find_gpu().name)}.tensorrt-{self.version}.cache"


class RtxBackend(_AnyTensorRtBackend):
    """Build engines with TensorRT-RTX on any machine, and run them on GPUs of some compute capabilities."""

    flavour = RTX
    title = RTX.title
    options_class = RtxOptions
    options: RtxOptions

    @property
    def device(self) -> str:
        """The compute capabilities of the GPUs that engines run on.

        Raises:
            EngineError: if that is this GPU's and there is no GPU.
            MissingExtraError: if that is this GPU's and cuda-python is not installed.
        """
        capabilities = self.options.compute_capabilities
        if capabilities == ("current",):
            return f"compute capability {find_gpu().compute_capability}"
        return f"compute capability {' or '.join(capabilities)}"

    def _fits(self, gpu: Gpu) -> bool:
        return not {gpu.compute_capability, "current"}.isdisjoint(self.options.compute_capabilities)

    def _compared_graph(self, source: BuildSource) -> Path | None:
        if source.precision != "int8":
            return None
        with suppress(WrongUsageError):  # a bundle may have no FP16 graph
            return source.graph_in("fp16")
        return None

    def _runtime_cache(self, engine: Path) -> Path:
        return engine.with_name(f"{engine.name}.{_slug(str(find_gpu()))}.cache")


def _slug(name: str) -> str:
    """Convert a GPU's name to a part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
