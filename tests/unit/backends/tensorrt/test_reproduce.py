"""The commands of trtexec and Polygraphy that reproduce an engine."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ccr_deploy.backends.base import BuiltFrom
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.backends.tensorrt.reproduce import reproduction

SHAPES = {"image": (224, 224, 3)}


DYNAMIC = Batch((32,), dynamic=True)


def commands(
    options: TensorRtOptions | RtxOptions, version: str, precision: str = "int8", batch: Batch = DYNAMIC
) -> list[str]:
    built = BuiltFrom(
        options=options,
        precision=precision,
        batch=batch,
        library_version=version,
        graph=lambda: Path("my bundle/graph.onnx"),
        input_shapes=SHAPES,
    )
    return reproduction(Path("encoder.plan"), built)


def test_the_commands_for_tensorrt_10() -> None:
    build, polygraphy, run, polygraphy_run = commands(
        TensorRtOptions(workspace_mib=4096, optimization_level=4), "10.13.3.9"
    )
    assert build == (
        "trtexec '--onnx=my bundle/graph.onnx' --minShapes=image:1x224x224x3 --optShapes=image:32x224x224x3 "
        "--maxShapes=image:32x224x224x3 --profilingVerbosity=detailed --memPoolSize=workspace:4096M --noTF32 "
        "--builderOptimizationLevel=4 --stronglyTyped --skipInference --saveEngine=trtexec.plan"
    )
    assert polygraphy == (
        "polygraphy convert 'my bundle/graph.onnx' --trt-min-shapes 'image:[1,224,224,3]' --trt-opt-shapes "
        "'image:[32,224,224,3]' --trt-max-shapes 'image:[32,224,224,3]' --pool-limit workspace:4096M "
        "--strongly-typed --builder-optimization-level 4 -o polygraphy.plan"
    )
    assert run == "trtexec --loadEngine=encoder.plan --shapes=image:32x224x224x3 --useCudaGraph"
    assert polygraphy_run == (
        "polygraphy run encoder.plan --model-type=engine --trt --input-shapes 'image:[32,224,224,3]'"
    )


def test_every_batch_size_has_a_profile_and_the_first_one_runs() -> None:
    build, polygraphy, run, polygraphy_run = commands(TensorRtOptions(), "10.13.3.9", batch=Batch((1, 8)))
    one, eight = "image:1x224x224x3", "image:8x224x224x3"
    assert (
        f"--profile=0 --minShapes={one} --optShapes={one} --maxShapes={one} "
        f"--profile=1 --minShapes={eight} --optShapes={eight} --maxShapes={eight} "
    ) in build
    assert (
        "--trt-min-shapes 'image:[1,224,224,3]' --trt-opt-shapes 'image:[1,224,224,3]' "
        "--trt-max-shapes 'image:[1,224,224,3]' --trt-min-shapes 'image:[8,224,224,3]' "
        "--trt-opt-shapes 'image:[8,224,224,3]' --trt-max-shapes 'image:[8,224,224,3]' "
    ) in polygraphy
    assert "--shapes=image:1x224x224x3" in run
    assert polygraphy_run.endswith("--input-shapes 'image:[1,224,224,3]'")


def test_compatibility_options_are_in_the_commands() -> None:
    options = TensorRtOptions(version_compatible=True, hardware_compatibility="ampere-plus", tf32=True)
    build, polygraphy, run, _ = commands(options, "10.3.0")
    assert run.endswith("--useCudaGraph --versionCompatible")
    for option in ("--versionCompatible", "--hardwareCompatibilityLevel=ampere+"):
        assert option in shlex.split(build)
    assert "--noTF32" not in build
    assert "--hardware-compatibility-level ampere_plus" in polygraphy
    for option in ("--version-compatible", "--tf32"):
        assert option in shlex.split(polygraphy)


def test_tensorrt_11_has_no_flag_for_strong_typing() -> None:
    assert "--stronglyTyped" not in commands(TensorRtOptions(), "11.4.0")[0]


@pytest.mark.parametrize(
    ("precision", "flags"), [("fp32", []), ("fp16", ["--fp16"]), ("int8", ["--fp16", "--int8"])]
)
def test_tensorrt_8_6_has_precision_flags(precision: str, flags: list[str]) -> None:
    for command in commands(TensorRtOptions(), "8.6.2", precision)[:2]:
        words = shlex.split(command)
        assert [word for word in words if word in {"--fp16", "--int8"}] == flags
        assert not {"--stronglyTyped", "--strongly-typed"} & set(words)


def test_the_commands_for_tensorrt_rtx() -> None:
    options = RtxOptions(compute_capabilities=("8.6", "12.0"))
    caveat, build, polygraphy, run, polygraphy_run = commands(options, "1.7.1.116")
    assert caveat.startswith("# For TensorRT-RTX neither tool")
    assert build.startswith("tensorrt_rtx ")
    assert "--computeCapabilities=86,120" in build
    assert polygraphy.startswith("env POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy convert")
    assert "--compute-capabilities 8.6 12.0" in polygraphy
    assert "--useCudaGraph" not in run
    assert run.endswith("--allocationStrategy=runtime")
    assert "--allocation-strategy runtime" in polygraphy_run
    _, build, polygraphy, *_ = commands(RtxOptions(compute_capabilities=("current",)), "1.7.1.116")
    assert "--useGpu" in build
    assert "--use-gpu" in polygraphy
