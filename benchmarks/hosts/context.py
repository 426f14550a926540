"""What an image is built from."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = (
    *("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"),
    *("ccr_deploy", "engines", "deploy"),
)


def make_context(bundle: Path, folder: Path) -> Path:
    """Make a build context as a user has it: a checkout, with a bundle that nobody else may read.

    Args:
        bundle: The bundle that the images are to hold.
        folder: An empty folder, which is returned.
    """
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    copied = shutil.copytree(bundle, folder / "bundle")
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder
