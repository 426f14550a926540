"""The supported versions of TensorRT, and the errors for others."""

from __future__ import annotations

import pytest

from ccr_deploy.backends.tensorrt.flavour import (
    RTX,
    TENSORRT,
    check_version,
    extra_of,
    flavour_of,
    is_strongly_typed,
)
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.core import gpu_driver
from ccr_deploy.core.gpu_driver import GpuDriver
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import EngineError


@pytest.mark.parametrize(
    "version", ["8.6.1", "8.6.2.post1", "10.3.0", "10.3.0.26", "10.13.3.9", "10.16.1", "11.0", "11.4.1.2"]
)
def test_supported_versions_are_accepted(version: str) -> None:
    check_version(TENSORRT, version)


@pytest.mark.parametrize("version", ["7.1.3", "8.5.2", "8.7.0", "9.2.0", "10.0.1", "10.2.0"])
def test_an_older_version_is_refused_with_a_hint_at_jetpack(version: str) -> None:
    with pytest.raises(EngineError, match=rf"TensorRT {version} is not supported.*update JetPack") as caught:
        check_version(TENSORRT, version)
    assert "pip install --upgrade 'ccr-deploy[tensorrt]'" in str(caught.value)


def test_a_future_version_is_refused() -> None:
    with pytest.raises(EngineError, match=r"TensorRT 12\.0\.0 is not supported yet"):
        check_version(TENSORRT, "12.0.0")


def test_rtx_before_1_5_is_refused() -> None:
    check_version(RTX, "1.5.0.114")
    check_version(RTX, "1.7.1.116")
    with pytest.raises(
        EngineError, match=r"^TensorRT-RTX 1\.4\.0\.76 is older than 1\.5: pip install .*\[rtx\]'$"
    ):
        check_version(RTX, "1.4.0.76")


@pytest.mark.parametrize(
    ("driver", "extra"),
    [
        (GpuDriver("580.65.06", (13, 0)), "tensorrt"),
        (GpuDriver("550.54.14", (12, 4)), "tensorrt-cu12"),
        (GpuDriver("540.4.0", (12, 6), is_jetson=True), "tensorrt-system"),
        (None, "tensorrt"),
    ],
)
def test_the_extra_of_tensorrt_depends_on_the_driver(
    driver: GpuDriver | None, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "find_driver", lambda: driver)
    assert extra_of(TENSORRT) == extra
    assert extra_of(RTX) == "rtx"


def test_only_8_6_has_builder_flags_for_precision() -> None:
    assert not is_strongly_typed(TENSORRT, "8.6.2")
    assert is_strongly_typed(TENSORRT, "10.3.0")
    assert is_strongly_typed(TENSORRT, "11.4")
    assert is_strongly_typed(RTX, "1.7.1.116")


def test_options_determine_the_flavour() -> None:
    assert flavour_of(TensorRtOptions()) is TENSORRT
    assert flavour_of(RtxOptions(compute_capabilities=("8.6",))) is RTX


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.13.3.9", (10, 13, 3, 9)), ("8.6.2.post1", (8, 6, 2)), ("dev", ()), ("", ())]
)
def test_versions_are_parsed_to_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers
