"""The two backends: what a target's engines are bound to, and the checks before one reaches TensorRT."""

from __future__ import annotations

import importlib.util
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ccr_deploy.backends.base import Backend, BuildSource, BuiltFrom, EngineFile
from ccr_deploy.backends.tensorrt.flavour import RTX, TENSORRT, Flavour, extra_of, import_library
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.backends.tensorrt.reproduce import reproduction
from ccr_deploy.core.gpu import Gpu, find_gpu
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
    from ccr_deploy.core.precisions import EnginePrecision


class _AnyTensorRtBackend(Backend):
    """What both flavours share."""

    flavour: ClassVar[Flavour]
    suffix = ".plan"
    packages = ("tensorrt", "tensorrt-cu12", "tensorrt-rtx", "polygraphy", "cuda-bindings")
    has_batch_profiles = True
    options: TensorRtOptions | RtxOptions

    def __init__(self, options: TensorRtOptions | RtxOptions) -> None:
        """Import the flavour's library.

        Raises:
            MissingExtraError: it is not installed.
            EngineError: it is of a version that is not known to work.
        """
        self.options = options
        self._library = import_library(self.flavour)
        self.version = str(self._library.__version__)

    def check_builds_here(self) -> None:
        """Raise an error if Polygraphy is missing, or a GPU that engines are bound to.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        if importlib.util.find_spec("polygraphy") is None:
            raise MissingExtraError("polygraphy", extra_of(self.flavour), f"building with {self.title}")
        self.device  # noqa: B018 -- raises where a GPU is needed and missing

    def check_runs_here(self) -> None:
        """Raise an error if this machine's GPU is not one that the engines are built for.

        Raises:
            EngineError, MissingExtraError: it is not, or there is none, or nobody can look for one.
        """
        gpu = find_gpu()
        if not self._fits(gpu):
            raise EngineError(f"the target's engines are for {self.device}, here is {gpu}")

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """Return FP32, FP16 and INT8: each has a graph."""
        return ("fp32", "fp16", "int8")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Build in a process of its own.

        Raises:
            EngineError: the graph cannot be built, or the builder's process ended.
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
        )
        return build(request, source.advance)

    def load(self, engine: EngineFile) -> TensorRtRunner:
        """Load an engine whose bytes are its sidecar's: engines execute code.

        Raises:
            EngineError: it was built by a later version, cannot run here, or TensorRT refuses it.
        """
        from ccr_deploy.backends.tensorrt.runner import TensorRtRunner

        if version_numbers(engine.library_version or "") > version_numbers(self.version):
            raise EngineError(
                f"{engine.path}: built by {self.title} {engine.library_version}, here is {self.version}: a "
                "version-compatible engine runs in later versions alone; build it again"
            )
        plan = engine.read(engine.path)
        try:
            self.check_runs_here()
        except CcrDeployError as error:
            raise EngineError(f"{engine.path}: cannot run here: {error}") from error
        return TensorRtRunner(
            self._library,
            plan,
            engine.path,
            runtime_cache=self._runtime_cache(engine.path),
            carries_code=self._carries_code,
        )

    @classmethod
    def reproduction(cls, engine: Path, built: BuiltFrom) -> list[str]:
        """Return the commands of trtexec and Polygraphy."""
        return reproduction(engine, built)

    @abstractmethod
    def _fits(self, gpu: Gpu) -> bool:
        """Whether a GPU is one that the engines are built for."""

    @property
    def _carries_code(self) -> bool:
        """Whether an engine brings the runtime that reads it, which it is then allowed to run."""
        return False

    def _timing_cache(self, caches: Path) -> Path | None:  # noqa: ARG002
        """Where the builder keeps what it timed."""
        return None

    def _runtime_cache(self, engine: Path) -> Path | None:  # noqa: ARG002
        """Where the runtime keeps what it compiles."""
        return None

    def _can_run(self) -> bool:
        try:
            self.check_runs_here()
        except CcrDeployError:
            return False
        return True


class TensorRtBackend(_AnyTensorRtBackend):
    """Builds and runs engines by TensorRT, on the GPU that they are built for."""

    flavour = TENSORRT
    title = TENSORRT.title
    options_class = TensorRtOptions
    has_machines = True
    options: TensorRtOptions

    @property
    def device(self) -> str:
        """What engines run on: this GPU, those of its compute capability, or all from Ampere on.

        Raises:
            EngineError, MissingExtraError: there is no GPU here, or nobody can look for one.
        """
        gpu = find_gpu()
        levels = {
            "none": str(gpu),
            "same-compute-capability": f"compute capability {gpu.compute_capability}",
            "ampere-plus": "compute capability 8.0 or later",
        }
        return levels[self.options.hardware_compatibility]

    @property
    def _carries_code(self) -> bool:
        return self.options.version_compatible

    def _fits(self, gpu: Gpu) -> bool:
        is_limited = self.options.hardware_compatibility == "ampere-plus"
        return not is_limited or version_numbers(gpu.compute_capability) >= (8, 0)

    def _timing_cache(self, caches: Path) -> Path | None:
        """One file for each GPU model and version: what was timed on one tells nothing about another."""
        if not self.options.timing_cache:
            return None
        return caches / f"timing.{_slug(find_gpu().name)}.tensorrt-{self.version}.cache"


class RtxBackend(_AnyTensorRtBackend):
    """Builds engines by TensorRT-RTX on any machine, and runs them on GPUs of some compute capabilities."""

    flavour = RTX
    title = RTX.title
    options_class = RtxOptions
    options: RtxOptions

    @property
    def device(self) -> str:
        """What engines run on: GPUs of some compute capabilities.

        Raises:
            EngineError, MissingExtraError: that is this GPU's, and there is none, or nobody can look for one.
        """
        capabilities = self.options.compute_capabilities
        if capabilities == ("current",):
            return f"compute capability {find_gpu().compute_capability}"
        return f"compute capability {' or '.join(capabilities)}"

    def _fits(self, gpu: Gpu) -> bool:
        return not {gpu.compute_capability, "current"}.isdisjoint(self.options.compute_capabilities)

    def _runtime_cache(self, engine: Path) -> Path:
        return engine.with_name(f"{engine.name}.{_slug(str(find_gpu()))}.cache")


def _slug(name: str) -> str:
    """A GPU's name as part of a file's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
