"""The commands of NVIDIA's own tools that build and run the same engine."""

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
    from ccr_deploy.backends.options import Batch
    from ccr_deploy.core.precisions import EnginePrecision

    Shapes = Mapping[str, tuple[int, ...]]

_COMPATIBILITY = {"same-compute-capability": "sameComputeCapability", "ampere-plus": "ampere+"}
_RTX_SWITCH = ["env", "POLYGRAPHY_USE_TENSORRT_RTX=1"]
_RTX_CAVEAT = (
    "# For TensorRT-RTX neither tool can leave the scratch memory to whoever runs the engine, nor Polygraphy "
    "turn TF32 off."
)


def reproduction(engine: Path, built: BuiltFrom) -> list[str]:
    """Return shell commands: two that build an engine anew from its graph, and two that run it.

    What is built goes into the working folder. A comment before them says in what the tools' engines differ.
    """
    assert isinstance(built.options, TensorRtOptions | RtxOptions)
    assert built.batch is not None
    version = built.library_version or ""
    asked = _Asked(built.options, built.precision, built.batch, version, built.input_shapes)
    graph = built.graph()
    commands = [
        shlex.join([*_trtexec_build(asked, graph)]),
        shlex.join([*_polygraphy_build(asked, graph)]),
        shlex.join([*_trtexec_run(asked, engine)]),
        shlex.join([*_polygraphy_run(asked, engine)]),
    ]
    return [_RTX_CAVEAT, *commands] if isinstance(asked.options, RtxOptions) else commands


@dataclass(frozen=True)
class _Asked:
    """What a build was asked for."""

    options: TensorRtOptions | RtxOptions
    precision: EnginePrecision
    batch: Batch
    version: str
    shapes: Shapes

    @property
    def precision_flags(self) -> list[str] | None:
        """TensorRT 8.6's; None where networks are strongly typed."""
        if isinstance(self.options, RtxOptions) or is_strongly_typed(TENSORRT, self.version):
            return None
        return {"int8": ["--fp16", "--int8"], "fp16": ["--fp16"]}.get(self.precision, [])


def _trtexec_build(asked: _Asked, graph: Path) -> Iterator[str]:
    options, is_rtx = asked.options, isinstance(asked.options, RtxOptions)
    yield from ("tensorrt_rtx" if is_rtx else "trtexec", f"--onnx={graph}")
    for name in ("min", "opt", "max"):
        yield f"--{name}Shapes={_trtexec_shapes(asked.shapes, getattr(asked.batch, name))}"
    yield "--profilingVerbosity=detailed"
    if options.workspace_mib:
        yield f"--memPoolSize=workspace:{options.workspace_mib}M"
    if not options.tf32:
        yield "--noTF32"
    yield from _trtexec_own(asked)
    yield from ("--skipInference", f"--saveEngine={'rtx' if is_rtx else 'trtexec'}.plan")


def _trtexec_own(asked: _Asked) -> Iterator[str]:
    """What only one of the two flavours has."""
    options = asked.options
    if isinstance(options, RtxOptions):
        numbers = ",".join(entry.replace(".", "") for entry in options.compute_capabilities)
        yield "--useGpu" if numbers == "current" else f"--computeCapabilities={numbers}"
        return
    yield f"--builderOptimizationLevel={options.optimization_level}"
    if asked.precision_flags is not None:
        yield from asked.precision_flags
    elif version_numbers(asked.version) < (11,):
        yield "--stronglyTyped"  # what TensorRT 11 always is
    if options.version_compatible:
        yield "--versionCompatible"
    if options.hardware_compatibility != "none":
        yield f"--hardwareCompatibilityLevel={_COMPATIBILITY[options.hardware_compatibility]}"


def _polygraphy_build(asked: _Asked, graph: Path) -> Iterator[str]:
    options = asked.options
    if isinstance(options, RtxOptions):
        yield from _RTX_SWITCH
    yield from ("polygraphy", "convert", str(graph))
    for name in ("min", "opt", "max"):
        yield from (f"--trt-{name}-shapes", *_polygraphy_shapes(asked.shapes, getattr(asked.batch, name)))
    if options.workspace_mib:
        yield from ("--pool-limit", f"workspace:{options.workspace_mib}M")
    yield from ("--strongly-typed",) if asked.precision_flags is None else asked.precision_flags
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


def _trtexec_run(asked: _Asked, engine: Path) -> Iterator[str]:
    options, is_rtx = asked.options, isinstance(asked.options, RtxOptions)
    yield from ("tensorrt_rtx" if is_rtx else "trtexec", f"--loadEngine={engine}")
    yield f"--shapes={_trtexec_shapes(asked.shapes, asked.batch.opt)}"
    if isinstance(options, RtxOptions):
        yield "--allocationStrategy=runtime"  # its engines are built for it
        return
    yield "--useCudaGraph"
    if options.version_compatible:
        yield "--versionCompatible"


def _polygraphy_run(asked: _Asked, engine: Path) -> Iterator[str]:
    is_rtx = isinstance(asked.options, RtxOptions)
    if is_rtx:
        yield from _RTX_SWITCH
    yield from ("polygraphy", "run", str(engine), "--model-type=engine", "--trt")
    if is_rtx:
        yield from ("--allocation-strategy", "runtime")
    yield from ("--input-shapes", *_polygraphy_shapes(asked.shapes, asked.batch.opt))


def _trtexec_shapes(shapes: Shapes, batch: int) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())


def _polygraphy_shapes(shapes: Shapes, batch: int) -> list[str]:
    return [f"{name}:{[batch, *shape]}".replace(" ", "") for name, shape in shapes.items()]
