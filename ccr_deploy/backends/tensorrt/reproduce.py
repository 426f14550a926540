"""The commands of NVIDIA's own tools that build and run the same engine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ccr_deploy.backends.tensorrt.flavour import TENSORRT, is_strongly_typed
from ccr_deploy.engine_options import RtxOptions, TensorRtOptions
from ccr_deploy.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.engine_options import Batch
    from ccr_deploy.engine_store import Sidecar

    Shapes = Mapping[str, tuple[int, ...]]

_COMPATIBILITY = {"same-compute-capability": "sameComputeCapability", "ampere-plus": "ampere+"}


def reproduction(sidecar: Sidecar, engine: Path, graph: Path, shapes: Shapes) -> list[str]:
    """Shell commands: two that build the engine of `sidecar` anew from `graph`, and two that run it.

    `shapes` are those of the graph's inputs behind the batch. What is built goes into the working folder.
    """
    resolved = sidecar.origin.resolved_target
    options, batch = resolved.options, resolved.batch
    assert isinstance(options, TensorRtOptions | RtxOptions)
    assert batch is not None
    common = [f"--onnx={graph}", *_trtexec_shapes(shapes, batch), "--profilingVerbosity=detailed"]
    if options.workspace_mib:
        common.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if not options.tf32:
        common.append("--noTF32")
    pool = ["--pool-limit", f"workspace:{options.workspace_mib}M"] if options.workspace_mib else []
    polygraphy = ["polygraphy", "convert", str(graph), *_polygraphy_shapes(shapes, batch), *pool]
    if isinstance(options, RtxOptions):
        tool, built, own, switch = "tensorrt_rtx", "rtx.plan", _rtx_options(options), _RTX_SWITCH
        polygraphy += ["--strongly-typed", *_polygraphy_capabilities(options)]
    else:
        tool, built, switch = "trtexec", "trtexec.plan", []
        own = _trtexec_options(options, sidecar)
        polygraphy += _polygraphy_options(options, sidecar)
    run = [f"--loadEngine={engine}", f"--shapes={_shapes(shapes, batch.opt)}"]
    if tool == "trtexec":
        run.append("--useCudaGraph")
    inputs = [f"{name}:{[batch.opt, *shape]}".replace(" ", "") for name, shape in shapes.items()]
    return [
        shlex.join([tool, *common, *own, "--skipInference", f"--saveEngine={built}"]),
        shlex.join([*switch, *polygraphy, "-o", "polygraphy.plan"]),
        shlex.join([tool, *run]),
        shlex.join(
            [
                *switch,
                "polygraphy",
                "run",
                str(engine),
                "--model-type=engine",
                "--trt",
                "--input-shapes",
                *inputs,
            ]
        ),
    ]


_RTX_SWITCH = ["env", "POLYGRAPHY_USE_TENSORRT_RTX=1"]


def _trtexec_options(options: TensorRtOptions, sidecar: Sidecar) -> list[str]:
    found = [f"--builderOptimizationLevel={options.optimization_level}"]
    version = sidecar.build.library_version or ""
    if not is_strongly_typed(TENSORRT, version):
        found += _precision_flags(sidecar)
    elif version_numbers(version) < (11,):
        found.append("--stronglyTyped")  # what TensorRT 11 always is
    if options.version_compatible:
        found.append("--versionCompatible")
    if options.hardware_compatibility != "none":
        found.append(f"--hardwareCompatibilityLevel={_COMPATIBILITY[options.hardware_compatibility]}")
    return found


def _rtx_options(options: RtxOptions) -> list[str]:
    if options.compute_capabilities == ("current",):
        return ["--useGpu"]
    return [
        f"--computeCapabilities={','.join(entry.replace('.', '') for entry in options.compute_capabilities)}"
    ]


def _polygraphy_options(options: TensorRtOptions, sidecar: Sidecar) -> list[str]:
    found = ["--builder-optimization-level", str(options.optimization_level)]
    if is_strongly_typed(TENSORRT, sidecar.build.library_version or ""):
        found.append("--strongly-typed")
    else:
        found += _precision_flags(sidecar)
    if options.tf32:
        found.append("--tf32")
    if options.version_compatible:
        found.append("--version-compatible")
    if options.hardware_compatibility != "none":
        level = options.hardware_compatibility.replace("-", "_")
        found += ["--hardware-compatibility-level", level]
    return found


def _polygraphy_capabilities(options: RtxOptions) -> list[str]:
    if options.compute_capabilities == ("current",):
        return ["--use-gpu"]
    return ["--compute-capabilities", *options.compute_capabilities]


def _precision_flags(sidecar: Sidecar) -> list[str]:
    return {"int8": ["--fp16", "--int8"], "fp16": ["--fp16"]}.get(sidecar.key.precision, [])


def _trtexec_shapes(shapes: Shapes, batch: Batch) -> list[str]:
    sizes = {"min": batch.min, "opt": batch.opt, "max": batch.max}
    return [f"--{name}Shapes={_shapes(shapes, size)}" for name, size in sizes.items()]


def _shapes(shapes: Shapes, batch: int) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())


def _polygraphy_shapes(shapes: Shapes, batch: Batch) -> list[str]:
    found: list[str] = []
    for option, size in (("min", batch.min), ("opt", batch.opt), ("max", batch.max)):
        entries = [f"{name}:{[size, *shape]}".replace(" ", "") for name, shape in shapes.items()]
        found += [f"--trt-{option}-shapes", *entries]
    return found
