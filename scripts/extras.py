"""The package's extras, as pyproject.toml declares them, and the oldest Python of each."""

from __future__ import annotations

from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
FROM_NVIDIA = ("tensorrt", "tensorrt-cu12")
"""Extras whose libraries are on NVIDIA's own index alone: the packages here are stubs that fetch them."""
_NEEDS_PYTHON_3_11 = ("export", "precision", "train", "cuda")
"""torch's exporter and Model Optimizer, and ONNX Runtime for CUDA 13, have no wheels for Python 3.10."""


def extras() -> dict[str, list[str]]:
    """Return the requirements of each extra."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared: dict[str, list[str]] = tomllib.loads(text)["project"]["optional-dependencies"]
    return declared


def oldest_python(extra: str) -> str:
    """Return the oldest Python that an extra is for."""
    return "3.11" if extra in _NEEDS_PYTHON_3_11 else "3.10"
