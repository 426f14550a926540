"""Errors of GPU discovery: no driver, an old driver, a missing or too new cuda-python."""

from __future__ import annotations

import sys

import pytest

from ccr_deploy.core import gpu
from ccr_deploy.core.gpu_driver import GpuDriver, gpu_extras
from ccr_deploy.errors import EngineError, MissingExtraError
from tests.support.gpu import gpu_is_there

CUDA_12 = GpuDriver("550.54.14", (12, 4))


def set_driver(driver: GpuDriver | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has the driver."""
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
def test_missing_cuda_python_is_reported_with_an_extra_for_the_driver(
    driver: GpuDriver, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_driver(driver, monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(MissingExtraError) as caught:
        gpu.find_gpu.__wrapped__()
    assert str(caught.value) == (
        f"using a GPU needs the package cuda-python, which is not installed: {command}"
    )


def test_a_driver_too_old_for_every_extra_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    set_driver(GpuDriver("470.82.01", (11, 4)), monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"driver 470\.82\.01 \(CUDA 11\.4\) is older than 535: update it$"):
        gpu.find_gpu.__wrapped__()


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    set_driver(None, monkeypatch)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"^no GPU found: no NVIDIA driver is installed$"):
        gpu.find_gpu.__wrapped__()


def test_a_container_without_gpu_access_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    set_driver(GpuDriver("580.65.06", None), monkeypatch)
    with pytest.raises(EngineError, match=r"the driver 580\.65\.06 is loaded, but .*docker run --gpus all"):
        gpu.find_gpu.__wrapped__()


def test_cuda_python_too_new_for_the_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA runtime reports a too old driver; it also does so if there is none, as on this machine."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    if gpu_is_there():
        pytest.skip("this machine's driver is new enough")
    set_driver(CUDA_12, monkeypatch)
    with pytest.raises(EngineError) as caught:
        gpu.find_gpu.__wrapped__()
    assert str(caught.value) == (
        "the installed cuda-python needs a newer driver than 550.54.14 (CUDA 12.4): "
        "pip install 'ccr-deploy[tensorrt-cu12]' or 'ccr-deploy[cuda12]'"
    )
