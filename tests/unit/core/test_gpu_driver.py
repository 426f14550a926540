"""The extras that fit each kind of driver and machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.cli.doctor import extras_lines
from ccr_deploy.core.gpu_driver import GpuDriver, GpuExtras, gpu_extras, read_driver

if TYPE_CHECKING:
    from pathlib import Path

JETPACK_6 = GpuDriver("540.4.0", (12, 6), is_jetson=True)
JETPACK_7 = GpuDriver("580.00", (13, 0), is_jetson=True)


@pytest.mark.parametrize(
    ("driver", "extras"),
    [
        (GpuDriver("580.65.06", (13, 0)), ("tensorrt", "cuda")),
        (GpuDriver("610.12", (13, 4)), ("tensorrt", "cuda")),
        (GpuDriver("575.57.08", (12, 9)), ("tensorrt-cu12", "cuda12")),
        (GpuDriver("535.54.03", (12, 2)), ("tensorrt-cu12", "cuda12")),
        (GpuDriver("525.60.13", (12, 0)), ()),
        (GpuDriver("470.82.01", (11, 4)), ()),
        # Only one is known: the version without libcuda, the CUDA version on a system other than Linux.
        (GpuDriver("580.65.06", None), ("tensorrt", "cuda")),
        (GpuDriver("579.99", None), ("tensorrt-cu12", "cuda12")),
        (GpuDriver("535", None), ("tensorrt-cu12", "cuda12")),
        (GpuDriver("534.99", None), ()),
        (GpuDriver(None, (13, 0)), ("tensorrt", "cuda")),
        (GpuDriver(None, (12, 8)), ("tensorrt-cu12", "cuda12")),
        (GpuDriver(None, (11, 8)), ()),
        # With NVIDIA's compatibility package an older driver supports a newer CUDA.
        (GpuDriver("535.54.03", (13, 0)), ("tensorrt", "cuda")),
        (JETPACK_6, ("tensorrt-system",)),
        (JETPACK_7, ("tensorrt-system",)),
        (GpuDriver(None, None, is_jetson=True), ("tensorrt-system",)),
    ],
    ids=str,
)
def test_extras_fit_the_driver(driver: GpuDriver, extras: tuple[str, ...]) -> None:
    assert gpu_extras(driver, (3, 12), "x86_64").names == extras


@pytest.mark.parametrize(
    ("driver", "python", "machine", "extras"),
    [
        (GpuDriver("580.65.06", (13, 0)), (3, 10), "x86_64", ("tensorrt", "cuda12")),
        (GpuDriver("580.65.06", (13, 0)), (3, 11), "aarch64", ("tensorrt", "cuda")),
        (GpuDriver("580.65.06", (13, 0)), (3, 10), "aarch64", ("tensorrt",)),
        (GpuDriver("550.54.14", (12, 4)), (3, 12), "aarch64", ("tensorrt-cu12",)),
    ],
)
def test_onnxruntime_extra_depends_on_python_and_architecture(
    driver: GpuDriver, python: tuple[int, int], machine: str, extras: tuple[str, ...]
) -> None:
    assert gpu_extras(driver, python, machine).names == extras


@pytest.mark.parametrize(
    ("driver", "line"),
    [
        (
            GpuDriver("580.65.06", (13, 0)),
            "extras for this GPU: tensorrt, cuda (the driver 580.65.06 (CUDA 13.0) supports CUDA 13)",
        ),
        (
            GpuDriver("550.54.14", (12, 4)),
            (
                "extras for this GPU: tensorrt-cu12, cuda12 (the driver 550.54.14 (CUDA 12.4) supports "
                "CUDA 12; CUDA 13 needs driver 580 or later)"
            ),
        ),
        (
            GpuDriver("470.82.01", None),
            "extras for this GPU: none (the driver 470.82.01 is older than 535: update it)",
        ),
        (JETPACK_6, "extras for this GPU: tensorrt-system (a Jetson: JetPack provides TensorRT)"),
    ],
)
def test_doctor_lists_the_extras_with_the_reason(driver: GpuDriver, line: str) -> None:
    assert extras_lines(gpu_extras(driver, (3, 12), "x86_64")) == (line,)


def test_doctor_lists_no_extras_without_a_driver() -> None:
    assert extras_lines(None) == ()


def test_advice_is_the_install_command_or_the_reason() -> None:
    both = GpuExtras("tensorrt-cu12", "cuda12", "")
    assert both.advice == "pip install 'ccr-deploy[tensorrt-cu12]' or 'ccr-deploy[cuda12]'"
    assert GpuExtras(None, None, "the driver is too old: update it").advice.endswith("update it")


@pytest.mark.parametrize(
    ("files", "cuda", "driver"),
    [
        ({}, None, None),
        ({"sys/module/nvidia/version": "580.65.06\n"}, (13, 0), GpuDriver("580.65.06", (13, 0))),
        ({"sys/module/nvidia/version": "580.65.06\n"}, None, GpuDriver("580.65.06", None)),
        ({}, (12, 8), GpuDriver(None, (12, 8))),
        ({"etc/nv_tegra_release": "# R36"}, (12, 6), GpuDriver(None, (12, 6), is_jetson=True)),
        (
            {"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"},
            None,
            GpuDriver(None, None, is_jetson=True),
        ),
        ({"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}, None, None),
    ],
)
def test_a_driver_is_read_from_system_files(
    files: dict[str, str], cuda: tuple[int, int] | None, driver: GpuDriver | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_driver(tmp_path, cuda) == driver
