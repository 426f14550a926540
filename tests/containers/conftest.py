"""Fixtures of these tests: podman, base images, the images, and their bundle."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.bases import import_debian, import_system_tensorrt
from benchmarks.hosts.context import make_context
from benchmarks.hosts.podman import Podman
from tests.containers.library import library_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.bundle.reader import Bundle
    from tests.containers.library import LibraryAnswers
    from tests.support.demo import CalibratedDemo

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "scripts" / "check_container_tools.sh"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, which build images and so are run by ``make test-containers`` alone."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    checked = subprocess.run([str(TOOLS)], capture_output=True, text=True, check=False)
    if checked.returncode:
        pytest.fail(checked.stderr)
    podman = Podman(tmp_path_factory.mktemp("podman"))
    try:
        yield podman
    finally:
        podman.clear()


@pytest.fixture(scope="session")
def debian(podman: Podman) -> str:
    """A base image: Debian with Python."""
    import_debian(podman, "localhost/debian")
    return "localhost/debian"


@pytest.fixture(scope="session")
def system_tensorrt(podman: Podman, debian: str) -> str:
    """A base image whose system has TensorRT-RTX, as NVIDIA's images have TensorRT."""
    import_system_tensorrt(podman, debian, "localhost/system-tensorrt")
    return "localhost/system-tensorrt"


@pytest.fixture(scope="session")
def context(calibrated_demo: CalibratedDemo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_context(calibrated_demo.bundle.path, tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="session")
def cpu_image(podman: Podman, debian: str, context: Path) -> str:
    podman.build(context, "localhost/ccr-deploy:cpu", "cpu", {"PYTHON_IMAGE": debian})
    return "localhost/ccr-deploy:cpu"


@pytest.fixture(scope="session")
def server_image(podman: Podman, debian: str, system_tensorrt: str, context: Path) -> str:
    bases = {"PYTHON_IMAGE": debian, "SERVER_IMAGE": system_tensorrt}
    podman.build(context, "localhost/ccr-deploy:server", "server", bases)
    return "localhost/ccr-deploy:server"


@pytest.fixture(scope="session")
def jetson_image(podman: Podman, debian: str, system_tensorrt: str, context: Path) -> str:
    bases = {"PYTHON_IMAGE": debian, "JETSON_IMAGE": system_tensorrt}
    podman.build(context, "localhost/ccr-deploy:jetson", "jetson", bases)
    return "localhost/ccr-deploy:jetson"


@pytest.fixture(scope="session")
def bundle(calibrated_demo: CalibratedDemo) -> Bundle:
    """The bundle in the images."""
    return calibrated_demo.bundle


@pytest.fixture(scope="session")
def answers(
    bundle: Bundle, calibrated_demo: CalibratedDemo, tmp_path_factory: pytest.TempPathFactory
) -> LibraryAnswers:
    """The results of the library on the target cpu, to compare a server's with."""
    return library_answers(
        bundle, "cpu", calibrated_demo.folder / "images", tmp_path_factory.mktemp("engines")
    )
