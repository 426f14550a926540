"""The backend: what a target's engines are bound to, and the checks before one reaches TensorRT."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from typing import TYPE_CHECKING, Literal

from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.flavour import RTX, extra_of, flavour_of, import_library
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.runner import TensorRtRunner
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.engines.sidecar import check_fields, check_hash, read_sidecar
from ccr_deploy.errors import CcrDeployError, EngineError, MissingExtraError
from ccr_deploy.targets.options import RtxOptions, bound_version

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import BuildSource
    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.engines.sidecar import Sidecar
    from ccr_deploy.targets.options import TensorRtOptions


class TensorRtBackend:
    """Builds and runs engines by TensorRT or TensorRT-RTX, whichever takes the options."""

    suffix = ".plan"
    int8_weight_bits: Literal[7, 8] = 8

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
        levels = {
            "none": str(gpu),
            "same-compute-capability": f"compute capability {gpu.compute_capability}",
            "ampere-plus": "compute capability 8.0 or later",
        }
        return levels[options.hardware_compatibility]

    def check_builds_here(self) -> None:
        """TensorRT builds on the GPU that it builds for, TensorRT-RTX on any machine.

        Raises:
            EngineError, MissingExtraError: what is missing.
        """
        if importlib.util.find_spec("polygraphy") is None:
            raise MissingExtraError(
                "polygraphy", extra_of(self._flavour), f"building with {self._flavour.title}"
            )
        self.device  # noqa: B018 -- raises where a GPU is needed and missing

    def check_runs_here(self) -> None:
        """Does nothing where this machine's GPU is one that the engines are built for.

        Raises:
            EngineError, MissingExtraError: it is not, or there is none, or nobody can look for one.
        """
        gpu, options = find_gpu(), self._options
        if isinstance(options, RtxOptions):
            fits = not {gpu.compute_capability, "current"}.isdisjoint(options.compute_capabilities)
        else:
            compatible = options.hardware_compatibility == "ampere-plus"
            fits = not compatible or version_numbers(gpu.compute_capability) >= (8, 0)
        if not fits:
            raise EngineError(f"the target's engines are for {self.device}, here is {gpu}")

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
        return build(request, source.advance)

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
        cache = engine.with_name(f"{engine.name}.{_slug(str(find_gpu()))}.cache")
        return TensorRtRunner(
            self._library,
            plan,
            engine,
            runtime_cache=cache if self._flavour is RTX else None,
            carries_code=getattr(self._options, "version_compatible", False),
        )

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
        return caches / f"timing.{_slug(find_gpu().name)}.tensorrt-{self.version}.cache"

    def _can_run(self) -> bool:
        try:
            self.check_runs_here()
        except CcrDeployError:
            return False
        return True


def _slug(name: str) -> str:
    """A GPU's name as part of a file's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
