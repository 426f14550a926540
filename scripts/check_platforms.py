"""Check that every extra resolves to wheels on the Pythons and platforms that it is for.

It asks the package index, by ``uv pip compile``, and prints a table. The exit status is 1 if a row that has
to resolve does not. The extras `tensorrt` and `tensorrt-cu12` are left out: what they name is fetched from
NVIDIA's own index while it is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
UV = Path(sys.prefix) / "bin" / "uv"
X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
"""uv takes this as glibc 2.28."""
JETPACK = {"3.10": "aarch64-manylinux_2_35", "3.12": "aarch64-manylinux_2_39"}
"""JetPack 6's and 7's Python, with the glibc beside it."""
WORKSTATION = "onnx,openvino,export,precision,rtx,train,video,serve,kubernetes,report"
"""What the Makefile installs."""
FROM_SOURCE = ("tensorrt-rtx", "tensorrt-rtx-cu13", "cppimport")
"""Sources that need no compiler: two name NVIDIA's wheels, one is Python code that Model Optimizer takes."""
_WITHOUT_WHEEL = re.compile(
    r"([a-z0-9][a-z0-9._-]*[a-z0-9])(?:\[[a-z0-9,]+\])?[^a-z\s]*\S* has no (?:usable )?wheels"
)


@dataclass(frozen=True)
class Row:
    """Extras with commas between, on a Python and a platform, perhaps with the workstation's constraints."""

    python: str
    platform: str
    extras: str
    required: bool
    constrained: bool = False


ROWS = (
    *(Row(python, X86, WORKSTATION, required=True, constrained=True) for python in ("3.11", "3.12", "3.13")),
    *(
        Row(python, X86, extra, required=True)
        for extra in ("cpu", "openvino", "serve", "rtx", "tensorrt-system", "cuda12")
        for python in ("3.10", "3.13")
    ),
    *(Row(python, X86, "cuda", required=True) for python in ("3.11", "3.13")),
    *(
        Row(python, ARM, extra, required=True)
        for extra in ("cpu", "openvino", "serve", "tensorrt-system")
        for python in JETPACK
    ),
    *(Row(python, ARM, extra, required=False) for extra in ("rtx", "cuda12") for python in JETPACK),
    Row("3.12", ARM, "cuda", required=False),
)


def without_wheel(complaint: str) -> tuple[str, ...]:
    """Return the packages of which uv says that they have no wheel for a Python or platform."""
    return tuple(sorted(set(_WITHOUT_WHEEL.findall(complaint))))


def complaint_about(row: Row, platform: str, from_source: tuple[str, ...] = ()) -> str:
    """Return why a row does not resolve, empty if it does.

    Args:
        row: what to resolve.
        platform: where; the row's own or one with a later glibc.
        from_source: packages that may be built from their source.
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
        command += ["--constraint", "constraints.txt", "--group", "dev"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else ""


def verdict(row: Row) -> tuple[bool, str]:
    """Return whether a row resolves, and how: by wheels, by wheels for a later glibc, or with a build."""
    complaint = complaint_about(row, row.platform)
    if not complaint:
        return True, "wheels"
    missing = without_wheel(complaint)
    if not missing:
        return False, " ".join(complaint.split())[:200]
    if row.platform == ARM:
        platform = JETPACK[row.python]
        if not complaint_about(row, platform):
            glibc = platform.rpartition("manylinux_")[2].replace("_", ".")
            return True, f"wheels with JetPack's glibc {glibc}, not with 2.28: {', '.join(missing)}"
        if not complaint_about(row, platform, missing):
            return True, f"no Arm wheel, a C compiler builds it: {', '.join(missing)}"
    return False, f"no wheel: {', '.join(missing)}"


def main() -> int:
    """Print the table and return the exit status."""
    failed = 0
    print(f"{'Python':<7} {'platform':<26} {'extra':<16} result")
    with ThreadPoolExecutor(8) as pool:
        for row, (resolves, how) in zip(ROWS, pool.map(verdict, ROWS), strict=True):
            failed += row.required and not resolves
            extras = "make's" if row.constrained else row.extras
            print(
                f"{row.python:<7} {row.platform:<26} {extras:<16} {'' if resolves else 'NO: '}{how}",
                flush=True,
            )
    print(f"{len(ROWS)} rows, {failed} that have to resolve and do not")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
