"""Base images made of Debian's own packages, where no registry of images can be reached."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.hosts.podman import Podman

KEPT = Path(__file__).parents[2] / "build" / "containers"
"""Debian's files, kept between runs."""
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


def import_debian(podman: Podman, tag: str) -> None:
    """Make an image of Debian with Python, standing in for ``python:3.11-slim-bookworm``.

    Args:
        podman: Whose storage it goes to.
        tag: What it is called.
    """
    archive = KEPT / "debian.tar"
    if not archive.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        # Interrupted, it leaves no archive of that name.
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        root = podman.folder / "debian"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(partial, "w") as file:
            file.add(root, ".")
        partial.rename(archive)
    podman("import", archive, tag)


def import_system_tensorrt(podman: Podman, base: str, tag: str) -> None:
    """Make an image whose system Python has TensorRT-RTX, as that of NVIDIA's images has TensorRT.

    Args:
        podman: Whose storage it goes to.
        base: The image that it is made from.
        tag: What it is called.
    """
    install = "python3 -m pip install --break-system-packages --no-cache-dir tensorrt-rtx numpy==1.26.4"
    context = podman.folder / "system-tensorrt"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base} AS base\nRUN {install}\n", encoding="utf-8")
    podman.build(context, tag, "base", {})
