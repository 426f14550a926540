"""ONNX Runtime's CUDA provider: session options and error messages, which need no GPU."""

from __future__ import annotations

import onnxruntime
import pytest

from ccr_deploy.backends.onnxruntime.cuda import gpu_only_options, no_cuda_message, provider_failure_message
from ccr_deploy.core.gpu_driver import GpuDriver, GpuExtras, gpu_extras

CUDA_13 = gpu_extras(GpuDriver("580.65.06", (13, 0)), (3, 12), "x86_64")
CUDA_12 = gpu_extras(GpuDriver("550.54.14", (12, 4)), (3, 12), "x86_64")
TOO_OLD = gpu_extras(GpuDriver("470.82.01", (11, 4)), (3, 12), "x86_64")
JETSON = gpu_extras(GpuDriver("540.4.0", (12, 6), is_jetson=True), (3, 10), "aarch64")
IDENTITY = (
    b'\x08\t:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def test_a_graph_with_an_operator_on_the_cpu_is_refused() -> None:
    """ONNX Runtime itself refuses it: without a GPU provider, all operators would run on the CPU."""
    onnxruntime.InferenceSession(IDENTITY, providers=[])
    with pytest.raises(Exception, match="fallback to CPU EP has been explicitly disabled"):
        onnxruntime.InferenceSession(IDENTITY, gpu_only_options(onnxruntime), providers=[])


@pytest.mark.parametrize(
    ("built_for", "extras", "advice"),
    [
        ("13.0", CUDA_13, "it needs the libraries of CUDA 13.0: pip install 'ccr-deploy[cuda]'"),
        ("12.8", CUDA_12, "it needs the libraries of CUDA 12.8: pip install 'ccr-deploy[cuda12]'"),
        # A workstation with a new driver, on which Model Optimizer requires an older ONNX Runtime.
        (
            "12.8",
            CUDA_13,
            (
                "it needs the libraries of CUDA 12.8; in a separate environment pip install "
                "'ccr-deploy[cuda]' installs CUDA 13"
            ),
        ),
        (
            "13.0",
            CUDA_12,
            (
                "it needs the libraries of CUDA 13.0; in a separate environment pip install "
                "'ccr-deploy[cuda12]' installs CUDA 12"
            ),
        ),
        ("", CUDA_13, "it needs the libraries of its own CUDA and cuDNN: pip install 'ccr-deploy[cuda]'"),
        ("13.0", TOO_OLD, "the driver 470.82.01 (CUDA 11.4) is older than 535: update it"),
        ("13.0", JETSON, "a Jetson: JetPack provides TensorRT"),
    ],
)
def test_a_provider_that_does_not_load_names_the_extra(
    built_for: str, extras: GpuExtras, advice: str
) -> None:
    text = provider_failure_message("1.31.1", built_for, "no libcublasLt.so.13", extras)
    assert text == f"ONNX Runtime 1.31.1 could not load its CUDA provider (no libcublasLt.so.13): {advice}"


def test_an_onnxruntime_without_cuda_names_the_commands_that_replace_it() -> None:
    assert no_cuda_message("1.31.1", CUDA_12) == (
        "this ONNX Runtime 1.31.1 was built without CUDA: pip uninstall onnxruntime, then "
        "pip install 'ccr-deploy[cuda12]'"
    )
    assert no_cuda_message("1.31.1", JETSON).endswith("without CUDA: a Jetson: JetPack provides TensorRT")
