"""The machines that a target is for."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.machine import Machine, check_fits
from ccr_deploy.core.gpu import Gpu
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.targets.schema import load_target


def gpu(name: str, capability: str = "9.0") -> Gpu:
    return Gpu(name, capability, 81920, "CUDA 13.0")


def machine(name: str) -> Machine:
    found = load_target(name).machine
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("target", "name", "version"),
    [
        ("h200", "NVIDIA H200", "10.13.3.9"),
        ("h200", "NVIDIA H100 80GB HBM3", "11.4.0"),
        ("h200-triton", "NVIDIA H200", "10.13.3.9"),
        ("l4", "NVIDIA L4", "10.3.0"),
        ("l4-triton", "NVIDIA L4", "10.3.0"),
        ("jetson-orin-jp6", "Orin", "8.6.2"),
        ("jetson-orin-jp6", "Orin", "10.3.0"),
        ("jetson-orin-jp7", "Orin", "10.16.1"),
        ("jetson-thor", "NVIDIA Thor", "10.13.3"),
    ],
)
def test_shipped_targets_fit_their_machines(target: str, name: str, version: str) -> None:
    check_fits(target, machine(target), gpu(name), "TensorRT", version)


def test_another_gpu_is_refused_and_named() -> None:
    with pytest.raises(
        WrongUsageError, match=r"target l4 is for NVIDIA L4, this machine's GPU is NVIDIA L40S"
    ):
        check_fits("l4", machine("l4"), gpu("NVIDIA L40S"), "TensorRT", "10.3.0")


@pytest.mark.parametrize("version", ["10.13.0", "11.0"])
def test_the_tensorrt_of_another_jetpack_is_refused_and_named(version: str) -> None:
    message = rf"jetson-orin-jp6 is for TensorRT from 8\.6 and below 10\.13, this machine has {version}"
    with pytest.raises(WrongUsageError, match=message):
        check_fits("jetson-orin-jp6", machine("jetson-orin-jp6"), gpu("Orin"), "TensorRT", version)


def test_exactly_one_orin_target_fits_each_tensorrt() -> None:
    for version in ("8.6.2", "10.3.0", "10.13.0", "11.4.0"):
        fitting = []
        for name in ("jetson-orin-jp6", "jetson-orin-jp7"):
            try:
                check_fits(name, machine(name), gpu("Orin"), "TensorRT", version)
            except WrongUsageError:
                continue
            fitting.append(name)
        assert len(fitting) == 1
