"""The script that checks on which platforms the extras resolve."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_platforms import ROWS, WORKSTATION, without_wheel

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("complaint", "packages"),
    [
        (
            "cause: Because psutil>=5.9.6,<=5.9.8 has no usable wheels and only the following versions",
            ("psutil",),
        ),
        (
            "Because openvino>=2025.3.0 has no wheels with a matching platform tag (e.g., `manylinux`)",
            ("openvino",),
        ),
        (
            "Because onnxruntime-gpu[cuda]>=1.31.0 has no wheels with a matching Python implementation tag",
            ("onnxruntime-gpu",),
        ),
        (
            "Because tensorrt-rtx-cu13-libs==1.5 has no wheels and tensorrt-rtx-cu13-libs==1.6 has no wheels",
            ("tensorrt-rtx-cu13-libs",),
        ),
        ("error: Request failed after 3 retries", ()),
    ],
)
def test_packages_without_a_wheel_are_named(complaint: str, packages: tuple[str, ...]) -> None:
    assert without_wheel(complaint) == packages


def test_the_workstations_extras_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"--editable '\.\[(.*)\]'", makefile) == [WORKSTATION]
    assert sorted(re.findall(r"--extra (\S+)", makefile)) == sorted(WORKSTATION.split(","))


@pytest.mark.slow  # asks the package index some forty times
def test_required_platforms_resolve() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_platforms.py"], capture_output=True, text=True, check=False
    )
    if "Request failed" in run.stdout or "Failed to fetch" in run.stdout:
        pytest.skip("the package index cannot be reached")
    assert run.returncode == 0, run.stdout
    assert f"{len(ROWS)} rows, 0 that have to resolve and do not" in run.stdout
