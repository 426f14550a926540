"""The root folder for Arm, the demo's bundle and images, and the results of this machine for them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.arm.reference import Reference
from tests.arm.root_folder import PROJECT, RootFolder, arm_programs_run, build_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.arm.differences import Differences

BUILD = PROJECT / "build"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RootFolder]:
    """Debian for Arm with ccr-deploy installed; created if it is missing, which takes minutes."""
    with arm_programs_run():
        folder = RootFolder(BUILD / "arm64" / "root")
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        folder.make()
        folder.install(build_wheel(tmp_path_factory.mktemp("wheel")))
        yield folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's bundle and every fourth of its images, of all classes."""
    folder = tmp_path_factory.mktemp("demo")
    made = BUILD / "demo"
    assert (made / "bundle" / "manifest.json").exists(), "no bundle found: run make test-arm"
    shutil.copytree(made / "bundle", folder / "bundle")
    for image in sorted((made / "images").rglob("*.png"))[::4]:
        copied = folder / image.relative_to(made)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, copied)
    return folder


@pytest.fixture(scope="session")
def reference(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The results of this machine."""
    return Reference(demo, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session")
def found() -> Iterator[dict[str, Differences]]:
    """The differences of each comparison; written to ``build/arm64/differences.json`` at the end."""
    differences: dict[str, Differences] = {}
    yield differences
    records = {name: entry.record() for name, entry in differences.items()}
    (BUILD / "arm64" / "differences.json").write_text(json.dumps(records, indent=2) + "\n")
