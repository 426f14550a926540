"""The build context of the container images."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = (
    *("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"),
    *("ccr_deploy", "engines", "deploy"),
)


def make_context(bundle: Path, folder: Path) -> Path:
    """Make a build context like a user's: a checkout with a bundle that only its owner can read.

    Args:
        bundle: the bundle for the images.
        folder: an empty folder for the context.

    Returns:
        The folder.
    """
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    copied = shutil.copytree(bundle, folder / "bundle")
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder
