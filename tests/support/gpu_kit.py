"""The kit that the tests on a GPU use: bundles, golden files and images that `make gpu-kit` prepared."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ccr_deploy.bundle.reader import Bundle

VARIABLE = "GPU_KIT"
"""The environment variable with the folder of the kit's content."""
DEFAULT = Path(__file__).parents[2] / "build" / "gpu-kit" / "content"


@dataclass(frozen=True)
class GpuKit:
    """The content of a kit."""

    folder: Path

    @property
    def images(self) -> Path:
        """The demo's test images; sub-folders are classes."""
        return self.folder / "images"

    @property
    def names(self) -> list[str]:
        """The names of the bundles."""
        return sorted(path.name for path in (self.folder / "bundles").iterdir())

    def bundle(self, name: str = "demo") -> Bundle:
        return Bundle.open(self.folder / "bundles" / name / "bundle")

    def golden(self, name: str = "demo") -> Path:
        """The golden file of a bundle."""
        return self.folder / "bundles" / name / "model.golden"


def kit_folder() -> Path:
    """Return the folder of the kit's content, which may not exist."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def kit_obstacle(folder: Path) -> str | None:
    """Return the reason why there is no kit in a folder; None if there is one."""
    if (folder / "kit.json").is_file():
        return None
    return (
        f"{folder}: no GPU kit: make it with make gpu-kit, or pass its folder with make test-gpu KIT=FOLDER"
    )
