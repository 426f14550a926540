"""Commands of NVIDIA's tools, trtexec and Polygraphy, that build and run the same engine."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.backends.tensorrt.flavour import TENSORRT, is_strongly_typed
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.core.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ccr_deploy.backends.base import BuiltFrom
    from ccr_deploy.backends.options import Batch, BatchProfile
    from ccr_deploy.core.precisions import EnginePrecision

    Shapes = Mapping[str, tuple[int, ...]]

_COMPATIBILITY = {"same-compute-capability": "sameComputeCapability", "ampere-plus": "ampere+"}
_RTX_SWITCH = ["env", "POLYGRAPHY_USE_TENSORRT_RTX=1"]
_RTX_CAVEAT = (
    "# For TensorRT-RTX neither tool can build an engine with user-allocated scratch memory, and Polygraphy "
    "cannot disable TF32."
)


def reproduction(engine: Path, built: BuiltFrom) -> list[str]:
    """Return shell commands: two that rebuild an engine from its graph, and two that run it.

    The commands write to the working folder. For TensorRT-RTX, a comment before them lists the differences of
    the tools' engines.
    """
    assert isinstance(built.options, TensorRtOptions | RtxOptions)
    assert built.batch is not None
    version = built.library_version or ""
    settings = _Settings(built.options, built.precision, built.batch, version, built.input_shapes)
    graph = built.graph()
    commands = [
        shlex.join([*_trtexec_build(settings, graph)]),
        shlex.join([*_polygraphy_build(settings, graph)]),
        shlex.join([*_trtexec_run(settings, engine)]),
        shlex.join([*_polygraphy_run(settings, engine)]),
    ]
    return [_RTX_CAVEAT, *commands] if isinstance(settings.options, RtxOptions) else commands


@dataclass(frozen=True)
class _Settings:
    """The settings of a build."""

    options: TensorRtOptions | RtxOptions
    precision: EnginePrecision
    batch: Batch
    version: str
    shapes: Shapes

    @property
    def first_profile(self) -> BatchProfile:
        """The profile that both tools run with by default."""
        return self.batch.profiles[0]

    @property
    def precision_flags(self) -> list[str] | None:
        """The flags that select the precision in TensorRT 8.6; None if networks are strongly typed."""
        if isinstance(self.options, RtxOptions) or is_strongly_typed(TENSORRT, self.version):
            return None
        return {"int8": ["--fp16", "--int8"], "fp16": ["--fp16"]}.get(self.precision, [])


def _trtexec_build(settings: _Settings, graph: Path) -> Iterator[str]:
    options, is_rtx = settings.options, isinstance(settings.options, RtxOptions)
    yield from ("tensorrt_rtx" if is_rtx else "trtexec", f"--onnx={graph}")
    profiles = settings.batch.profiles
    for index, profile in enumerate(profiles):
        if len(profiles) > 1:
            yield f"--profile={index}"
        for name in ("min", "opt", "max"):
            yield f"--{name}Shapes={_trtexec_shapes(settings.shapes, getattr(profile, name))}"
    yield "--profilingVerbosity=detailed"
    if options.workspace_mib:
        yield f"--memPoolSize=workspace:{options.workspace_mib}M"
    if not options.tf32:
        yield "--noTF32"
    yield from _trtexec_own(settings)
    yield from ("--skipInference", f"--saveEngine={'rtx' if is_rtx else 'trtexec'}.plan")


def _trtexec_own(settings: _Settings) -> Iterator[str]:
    """Yield the options that only one of the two flavours has."""
    options = settings.options
    if isinstance(options, RtxOptions):
        numbers = ",".join(entry.replace(".", "") for entry in options.compute_capabilities)
        yield "--useGpu" if numbers == "current" else f"--computeCapabilities={numbers}"
        return
    yield f"--builderOptimizationLevel={options.optimization_level}"
    if settings.precision_flags is not None:
        yield from settings.precision_flags
    elif version_numbers(settings.version) < (11,):
        yield "--stronglyTyped"  # TensorRT 11 has no such flag: its networks are always strongly typed
    if options.version_compatible:
        yield "--versionCompatible"
    if options.hardware_compatibility != "none":
        yield f"--hardwareCompatibilityLevel={_COMPATIBILITY[options.hardware_compatibility]}"


def _polygraphy_build(settings: _Settings, graph: Path) -> Iterator[str]:
    options = settings.options
    if isinstance(options, RtxOptions):
        yield from _RTX_SWITCH
    yield from ("polygraphy", "convert", str(graph))
    for profile in settings.batch.profiles:
        for name in ("min", "opt", "max"):
            sizes = _polygraphy_shapes(settings.shapes, getattr(profile, name))
            yield from (f"--trt-{name}-shapes", *sizes)
    if options.workspace_mib:
        yield from ("--pool-limit", f"workspace:{options.workspace_mib}M")
    yield from ("--strongly-typed",) if settings.precision_flags is None else settings.precision_flags
    if isinstance(options, RtxOptions):
        current = options.compute_capabilities == ("current",)
        yield from ("--use-gpu",) if current else ("--compute-capabilities", *options.compute_capabilities)
    else:
        yield from ("--builder-optimization-level", str(options.optimization_level))
        if options.tf32:
            yield "--tf32"
        if options.version_compatible:
            yield "--version-compatible"
        if options.hardware_compatibility != "none":
            yield from ("--hardware-compatibility-level", options.hardware_compatibility.replace("-", "_"))
    yield from ("-o", "polygraphy.plan")


def _trtexec_run(settings: _Settings, engine: Path) -> Iterator[str]:
    options, is_rtx = settings.options, isinstance(settings.options, RtxOptions)
    yield from ("tensorrt_rtx" if is_rtx else "trtexec", f"--loadEngine={engine}")
    yield f"--shapes={_trtexec_shapes(settings.shapes, settings.first_profile.max)}"
    if isinstance(options, RtxOptions):
        yield "--allocationStrategy=runtime"  # the engines are built with REQUIRE_USER_ALLOCATION
        return
    yield "--useCudaGraph"
    if options.version_compatible:
        yield "--versionCompatible"


def _polygraphy_run(settings: _Settings, engine: Path) -> Iterator[str]:
    is_rtx = isinstance(settings.options, RtxOptions)
    if is_rtx:
        yield from _RTX_SWITCH
    yield from ("polygraphy", "run", str(engine), "--model-type=engine", "--trt")
    if is_rtx:
        yield from ("--allocation-strategy", "runtime")
    yield from ("--input-shapes", *_polygraphy_shapes(settings.shapes, settings.first_profile.max))


def _trtexec_shapes(shapes: Shapes, batch: int) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())


def _polygraphy_shapes(shapes: Shapes, batch: int) -> list[str]:
    return [f"{name}:{[batch, *shape]}".replace(" ", "") for name, shape in shapes.items()]
