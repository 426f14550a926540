"""The backend: what a target's engines are bound to, and the checks before one reaches TensorRT."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from typing import TYPE_CHECKING

from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.flavour import flavour_of, import_library
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
from ccr_deploy.engine_options import RtxOptions, bound_version
from ccr_deploy.engine_store import check_fields, check_hash, read_sidecar
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError
from ccr_deploy.gpu import find_gpu
from ccr_deploy.versions import version_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import BuildSource
    from ccr_deploy.engine_options import TensorRtOptions
    from ccr_deploy.engine_store import BuildFacts, Sidecar
    from ccr_deploy.precisions import EnginePrecision


class TensorRtBackend:
    """Builds and runs engines by TensorRT or TensorRT-RTX, whichever takes the options."""

    suffix = ".plan"

    def __init__(self, options: TensorRtOptions | RtxOptions) -> None:
        """Imports the flavour's library.

        Raises:
            MissingExtraError: it is not installed.
            EngineError: it is of a version that is not known to work.
        """
        self._options = options
        self._flavour = flavour_of(options)
        self._library = import_library(self._flavour)

    @property
    def name(self) -> str:
        """The flavour's."""
        return self._flavour.name

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self._library.__version__)

    @property
    def device(self) -> str:
        """What engines run on: this GPU, GPUs of some compute capabilities, or all from Ampere on.

        Raises:
            EngineError, MissingExtraError: that is this GPU, and there is none, or nobody can look for one.
        """
        options = self._options
        if isinstance(options, RtxOptions):
            if options.compute_capabilities == ("current",):
                return f"compute capability {find_gpu().compute_capability}"
            return f"compute capability {' or '.join(options.compute_capabilities)}"
        gpu = find_gpu()
        if options.hardware_compatibility == "ampere-plus":
            return "compute capability 8.0 or later"
        if options.hardware_compatibility == "same-compute-capability":
            return f"compute capability {gpu.compute_capability}"
        return str(gpu)

    def check_builds_here(self) -> None:
        """TensorRT builds on the GPU that it builds for, TensorRT-RTX on any machine.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        if importlib.util.find_spec("polygraphy") is None:
            raise MissingExtraError("polygraphy", self._flavour.extra, f"building with {self._flavour.title}")
        self.device  # noqa: B018 -- raises where a GPU is needed and missing

    def check_runs_here(self) -> None:
        """Does nothing where this machine's GPU is one that the engines are built for.

        Raises:
            EngineError, MissingExtraError: it is not, or there is none, or nobody can look for one.
        """
        gpu, options = find_gpu(), self._options
        if isinstance(options, RtxOptions) and options.compute_capabilities != ("current",):
            if gpu.compute_capability not in options.compute_capabilities:
                raise EngineError(
                    f"{gpu} is none of the target's compute capabilities "
                    f"({', '.join(options.compute_capabilities)})"
                )
        elif getattr(options, "hardware_compatibility", "none") == "ampere-plus" and version_numbers(
            gpu.compute_capability
        ) < (8, 0):
            raise EngineError(f"{gpu} is older than Ampere, which the target's engines need")

    def check_precision(self, precision: EnginePrecision) -> None:
        """FP32, FP16 and INT8: each has a graph.

        Raises:
            EngineError: BF16 was asked for.
        """
        if precision not in self.native_precisions():
            raise EngineError(
                f"there is no {precision.upper()} graph for {self._flavour.title}: choose FP32, FP16 or INT8"
            )

    def native_precisions(self) -> tuple[EnginePrecision, ...]:
        """FP32, FP16 and INT8."""
        return ("fp32", "fp16", "int8")

    def build(self, source: BuildSource, engine: Path) -> BuildFacts:
        """Builds in a process of its own.

        Raises:
            EngineError: the graph cannot be built, or the builder's process ended.
        """
        assert source.graph is not None
        assert source.target.batch is not None
        request = BuildRequest(
            graph=source.graph,
            engine=engine,
            options=self._options,
            precision=source.target.precision,
            batch=source.target.batch,
            input_shapes=source.bundle.manifest.input_shapes(source.stage),
            timing_cache=self._timing_cache(source.caches),
            can_run=self._can_run(),
        )
        return build(request, source.progress)

    def load(self, engine: Path, precision: EnginePrecision) -> TensorRtRunner:
        """Loads an engine after its sidecar and its bytes were checked: engines execute code.

        Raises:
            EngineError: sidecar or engine is missing, changed or another's, they were built for another
                version or GPU, or TensorRT refuses the engine.
        """
        sidecar = read_sidecar(engine)
        here = {
            "backend": self.name,
            "backend_version": bound_version(self._options, self.version),
            "device": self.device,
            "precision": precision,
        }
        check_fields(engine, sidecar, here)
        self._check_forward(engine, sidecar)
        plan = engine.read_bytes()
        check_hash(engine, sidecar, hashlib.sha256(plan).hexdigest())
        try:
            self.check_runs_here()
        except CcrDeployError as error:
            raise EngineError(f"{engine}: cannot run here: {error}") from error
        return TensorRtRunner(self._library, plan, engine)

    def _check_forward(self, engine: Path, sidecar: Sidecar) -> None:
        built_by = sidecar.build.library_version or ""
        if version_numbers(built_by) > version_numbers(self.version):
            raise EngineError(
                f"{engine}: built by {self._flavour.title} {built_by}, here is {self.version}: a "
                "version-compatible engine runs in later versions alone; build it again"
            )

    def _timing_cache(self, caches: Path) -> Path | None:
        """One file for each GPU model and version: what was timed on one tells nothing about another."""
        if isinstance(self._options, RtxOptions) or not self._options.timing_cache:
            return None
        gpu = re.sub(r"[^a-z0-9]+", "-", find_gpu().name.lower()).strip("-")
        return caches / f"timing.{gpu}.tensorrt-{self.version}.cache"

    def _can_run(self) -> bool:
        try:
            self.check_runs_here()
        except CcrDeployError:
            return False
        return True
