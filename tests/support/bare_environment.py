"""Fresh virtual environments, as on a machine that has nothing of this project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")


def find_python(version: str) -> str | None:
    """Return a Python of a version, such as ``"3.10"``; None if this machine has none."""
    installed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    for candidate in filter(None, (shutil.which(f"python{version}"), *installed)):
        # A command on PATH may not run: pyenv's shims exit with status 127.
        if run(str(candidate), "-c", "import venv").returncode == 0:
            return str(candidate)
    return None


def oldest_python() -> str:
    """Return Python 3.10, the oldest supported, if this machine has it; else the tests' own Python."""
    return find_python("3.10") or sys.executable


def make_environment(python: str, path: Path, *packages: str) -> None:
    """Create a virtual environment and install packages with pip; skip the test if that fails."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed, which creates the environment")
    made = run(uv, "venv", "--seed", "--no-python-downloads", "--python", python, str(path))
    assert made.returncode == 0, made.stderr
    installed = run(str(path / "bin" / "python"), "-m", "pip", "install", "-q", *packages)
    if installed.returncode:
        reason = " ".join(installed.stderr.split())[-300:]
        pytest.skip(f"{' '.join(packages)} cannot be installed: {reason}")
