"""Base images from Debian's packages, for machines that cannot reach an image registry."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.hosts.podman import Podman

KEPT = Path(__file__).parents[2] / "build" / "containers"
"""The cache of Debian's files, which later runs use again."""
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"


def import_debian(podman: Podman, tag: str) -> None:
    """Make an image of Debian with Python, in place of ``python:3.11-slim-bookworm``.

    Args:
        podman: podman, whose storage gets the image.
        tag: the name of the image.
    """
    archive = KEPT / "debian.tar"
    if not archive.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        # Renamed at the end, so that an interrupted run leaves no incomplete archive.
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
    """Make an image whose system Python has TensorRT-RTX, as NVIDIA's images have TensorRT.

    Args:
        podman: podman, whose storage gets the image.
        base: the image that it is built from.
        tag: the name of the image.
    """
    install = "python3 -m pip install --break-system-packages --no-cache-dir tensorrt-rtx numpy==1.26.4"
    context = podman.folder / "system-tensorrt"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base} AS base\nRUN {install}\n", encoding="utf-8")
    podman.build(context, tag, "base", {})
