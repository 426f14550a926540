"""Check that every extra resolves to wheels on the Pythons and platforms that it supports.

The script asks the package index, with ``uv pip compile``, and prints a table. The exit status is 1 if a
required row does not resolve. The extras come from pyproject.toml, except those whose libraries are on
NVIDIA's index alone: their packages fetch the libraries while they are installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ccr_deploy.core.versions import version_numbers
from scripts.extras import FROM_NVIDIA, ROOT, extras, oldest_python

UV = Path(sys.prefix) / "bin" / "uv"
X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
"""uv takes this as glibc 2.28."""
JETPACK = {"3.10": "aarch64-manylinux_2_35", "3.12": "aarch64-manylinux_2_39"}
"""The Python of JetPack 6 and JetPack 7, each with its glibc."""
NEWEST_PYTHON = "3.13"
WORKSTATION = "onnx,openvino,export,precision,rtx,train,video,serve,kubernetes,loadgen,report"
"""The extras that the Makefile installs."""
NOT_REQUIRED_ON_ARM = ("rtx", "cuda", "cuda12", "export", "precision", "train")
"""A Jetson has JetPack's TensorRT, and the stages on PyTorch run on the workstation."""
FROM_SOURCE = ("tensorrt-rtx", "tensorrt-rtx-cu13", "cppimport")
"""Source packages that need no compiler: two fetch NVIDIA's wheels, Model Optimizer's is pure Python."""
_WITHOUT_WHEEL = re.compile(
    r"([a-z0-9][a-z0-9._-]*[a-z0-9])(?:\[[a-z0-9,]+\])?[^a-z\s]*\S* has no (?:usable )?wheels"
)


@dataclass(frozen=True)
class Row:
    """One resolution: extras, separated by commas, for a Python and a platform.

    A `constrained` row has the versions of constraints.txt, and the development tools.
    """

    python: str
    platform: str
    extras: str
    required: bool
    constrained: bool = False


def rows_of_extra(extra: str) -> tuple[Row, ...]:
    """Return an extra's rows: its oldest Python and the newest on x86-64, JetPack's Pythons on Arm."""
    oldest = oldest_python(extra)
    jetpack = [python for python in JETPACK if version_numbers(python) >= version_numbers(oldest)]
    return (
        *(Row(python, X86, extra, required=True) for python in (oldest, NEWEST_PYTHON)),
        *(Row(python, ARM, extra, required=extra not in NOT_REQUIRED_ON_ARM) for python in jetpack),
    )


ROWS = (
    *(Row(python, X86, WORKSTATION, required=True, constrained=True) for python in ("3.11", "3.12", "3.13")),
    *(row for extra in extras() if extra not in FROM_NVIDIA for row in rows_of_extra(extra)),
)


def without_wheel(error: str) -> tuple[str, ...]:
    """Return the packages for which uv reports no wheel for the Python or platform."""
    return tuple(sorted(set(_WITHOUT_WHEEL.findall(error))))


def resolution_error(row: Row, platform: str, from_source: tuple[str, ...] = ()) -> str:
    """Return the reason why a row does not resolve; empty if it does.

    Args:
        row: the extras and the Python.
        platform: the platform, as uv names it: the row's own or one with a later glibc.
        from_source: packages that may be built from source.
    """
    command = [
        str(UV), "pip", "compile", "--quiet", "pyproject.toml", "--output-file", "/dev/null",
        "--python-version", row.python, "--python-platform", platform, "--only-binary", ":all:",
    ]  # fmt: skip
    for package in (*FROM_SOURCE, *from_source):
        command += ["--no-binary", package]
    for extra in row.extras.split(","):
        command += ["--extra", extra]
    if row.constrained:
        # What `make` installs.
        command += ["--constraint", "constraints.txt", "--group", "dev"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else ""


def verdict(row: Row) -> tuple[bool, str]:
    """Return whether a row resolves, and from what: wheels, wheels for a later glibc, or source."""
    error = resolution_error(row, row.platform)
    if not error:
        return True, "wheels"
    missing = without_wheel(error)
    if not missing:
        return False, " ".join(error.split())[:200]
    if row.platform == ARM:
        platform = JETPACK[row.python]
        if not resolution_error(row, platform):
            glibc = platform.rpartition("manylinux_")[2].replace("_", ".")
            return True, f"wheels for glibc {glibc} (JetPack's), none for 2.28: {', '.join(missing)}"
        if not resolution_error(row, platform, missing):
            return True, f"needs a C compiler, no Arm wheel: {', '.join(missing)}"
    return False, f"no wheel: {', '.join(missing)}"


def main() -> int:
    """Print the table and return the exit status."""
    failed = 0
    print(f"{'Python':<7} {'platform':<26} {'extra':<16} result")
    with ThreadPoolExecutor(8) as pool:
        # map keeps the order, so that the table is printed as it grows.
        for row, (resolves, how) in zip(ROWS, pool.map(verdict, ROWS), strict=True):
            failed += row.required and not resolves
            extras = "(make installs)" if row.constrained else row.extras
            print(
                f"{row.python:<7} {row.platform:<26} {extras:<16} {'' if resolves else 'FAILED: '}{how}",
                flush=True,
            )
    print(f"{len(ROWS)} rows, {failed} required rows failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
