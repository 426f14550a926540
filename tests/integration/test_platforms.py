"""The release check that every extra resolves on its platforms."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_extras import PROGRAMS
from scripts.check_platforms import ROWS, WORKSTATION, without_wheel
from scripts.extras import FROM_NVIDIA, extras

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "packages"),
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
def test_packages_without_a_wheel_are_named(error: str, packages: tuple[str, ...]) -> None:
    assert without_wheel(error) == packages


def test_workstation_extras_equal_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"--editable '\.\[(.*)\]'", makefile) == [WORKSTATION]
    assert sorted(re.findall(r"--extra (\S+)", makefile)) == sorted(WORKSTATION.split(","))


def test_every_extra_is_checked() -> None:
    assert {*PROGRAMS, *FROM_NVIDIA} == set(extras())
    assert {extra for row in ROWS if not row.constrained for extra in row.extras.split(",")} == {*PROGRAMS}


@pytest.mark.slow  # asks the package index about sixty times: minutes
def test_required_extras_resolve() -> None:
    command = [sys.executable, "-m", "scripts.check_platforms"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "Request failed" in run.stdout or "Failed to fetch" in run.stdout:
        pytest.skip("the package index cannot be reached")
    assert run.returncode == 0, run.stdout
    assert f"{len(ROWS)} rows, 0 required rows failed" in run.stdout
