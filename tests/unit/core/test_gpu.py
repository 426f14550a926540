"""What a user is told whose machine has a driver, but no cuda-python that fits it."""

from __future__ import annotations

import sys

import pytest

from ccr_deploy.core import gpu
from ccr_deploy.core.gpu_driver import GpuDriver, gpu_extras
from ccr_deploy.errors import EngineError, MissingExtraError
from tests.support.gpu import gpu_is_there

CUDA_12 = GpuDriver("550.54.14", (12, 4))


def have(driver: GpuDriver | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine with such a driver."""
    monkeypatch.setattr(gpu, "find_driver", lambda: driver)
    if driver:
        monkeypatch.setattr(gpu, "extras_here", lambda: gpu_extras(driver, (3, 12), "x86_64"))


@pytest.mark.parametrize(
    ("driver", "command"),
    [
        (GpuDriver("580.65.06", (13, 0)), "pip install 'ccr-deploy[tensorrt]' or 'ccr-deploy[cuda]'"),
        (CUDA_12, "pip install 'ccr-deploy[tensorrt-cu12]' or 'ccr-deploy[cuda12]'"),
        (GpuDriver("540.4.0", (12, 6), is_jetson=True), "pip install 'ccr-deploy[tensorrt-system]'"),
    ],
)
def test_the_missing_cuda_python_comes_with_an_extra_that_the_machine_takes(
    driver: GpuDriver, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(driver, monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError) as caught:
        gpu.find_gpu.__wrapped__()
    assert str(caught.value) == (
        f"using a GPU needs the package cuda-python, which is not installed: {command}"
    )


def test_a_driver_that_no_extra_takes_is_to_be_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    have(GpuDriver("470.82.01", (11, 4)), monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"driver 470\.82\.01 \(CUDA 11\.4\) is older than 535: update it$"):
        gpu.find_gpu.__wrapped__()


def test_without_a_driver_there_is_no_gpu_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    have(None, monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"^there is no GPU here: no NVIDIA driver is installed$"):
        gpu.find_gpu.__wrapped__()


def test_a_container_that_the_gpu_was_not_given_to(monkeypatch: pytest.MonkeyPatch) -> None:
    have(GpuDriver("580.65.06", None), monkeypatch)
    with pytest.raises(EngineError, match=r"the driver 580\.65\.06 is loaded, but .*docker run --gpus all"):
        gpu.find_gpu.__wrapped__()


def test_a_cuda_python_that_is_too_new_for_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's own runtime says so, as it does where there is no driver at all."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    if gpu_is_there():
        pytest.skip("this machine's driver is new enough")
    have(CUDA_12, monkeypatch)
    with pytest.raises(EngineError) as caught:
        gpu.find_gpu.__wrapped__()
    assert str(caught.value) == (
        "the cuda-python that is installed wants a later driver than 550.54.14 (CUDA 12.4): "
        "pip install 'ccr-deploy[tensorrt-cu12]' or 'ccr-deploy[cuda12]'"
    )
