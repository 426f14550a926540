"""The Triton repository, written in one container onto a volume and served in another.

The server is the one of ``make triton-server``, mounted read-only into a container of the base image together
with the Python that it was installed for.
"""

from __future__ import annotations

import shutil
import sysconfig
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.hosts.clients import CLIENTS
from benchmarks.hosts.processes import PATIENCE_SECONDS
from benchmarks.hosts.triton.server import BACKENDS, ENVIRONMENT, Installation, NoServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hosts.podman import Container, Podman
    from tests.containers.library import LibraryAnswers

PORTS = {"http": 8000, "grpc": 8001}
INSIDE = Path("/triton")
"""Where `ENVIRONMENT` is mounted."""
PYTHON = Path("/python")
"""Where the Python that it was made by is mounted."""
REPOSITORY = "/repository/models"


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return Installation.find()
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def work(podman: Podman, answers: LibraryAnswers) -> Iterator[str]:
    """A volume for a camera's images and payloads."""
    with podman.volume() as name:
        folder = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", name).stdout.strip())
        (folder / "images").mkdir()
        for number, path in enumerate(answers.paths):
            shutil.copy(path, folder / "images" / f"{number}.png")
        yield name


def ccr_deploy(podman: Podman, image: str, *arguments: str, volumes: dict[str, str]) -> None:
    """Run ``ccr-deploy ARGUMENTS`` in a container to its end.

    Args:
        podman: podman.
        image: the image with ccr-deploy.
        arguments: the arguments of the command.
        volumes: the mount point of each volume, by name.
    """
    mounts = [word for name, path in volumes.items() for word in ("--volume", f"{name}:{path}")]
    options = (*mounts, "--env", "HOME=/tmp", "--entrypoint", "ccr-deploy")
    with podman.container(image, *arguments, options=options) as container:
        status = container.wait()
        assert status == 0, container.logs


@pytest.fixture(scope="module")
def repository(podman: Podman, cpu_image: str, installation: Installation, work: str) -> Iterator[str]:
    """A volume with the model repository; the containers that need engines share another."""
    with podman.volume() as engines, podman.volume() as name:
        volumes = {engines: "/engines", name: "/repository", work: "/data"}
        package = ("package", "--format", "triton", "--output", REPOSITORY)
        encode = ("encode", "/data/images", "--output", "/data/payloads")
        for command in (("build-engine",), package, encode):
            ccr_deploy(podman, cpu_image, *command, "--target", "cpu", volumes=volumes)
        yield name


def backends(installation: Installation, folder: Path) -> Path:
    """Put the server's backends together, for everyone to read."""
    made = folder / "backends"
    shutil.copytree(BACKENDS, made, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(installation.python_backend, made / "python")
    shutil.copy(installation.stub, made / "python")
    readable(made)
    return made


def environment(packages: Path, folder: Path) -> Path:
    """Make the server's environment anew for the places where its parts are in the container.

    Args:
        packages: the folder of the environment's packages in the container.
        folder: the folder to write to.
    """
    made = folder / "environment"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python3").symlink_to(PYTHON / "bin" / "python3")
    (made / "pyvenv.cfg").write_text(f"home = {PYTHON / 'bin'}\n", encoding="utf-8")
    packages_here = made / packages.relative_to(INSIDE)
    packages_here.parent.mkdir(parents=True)
    packages_here.symlink_to(packages)
    readable(made)
    return made


def readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)


@pytest.fixture(scope="module")
def server(
    podman: Podman,
    debian: str,
    installation: Installation,
    repository: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("triton")
    packages = INSIDE / installation.program.parents[3].relative_to(ENVIRONMENT)
    mounts = {
        ENVIRONMENT: INSIDE,
        sysconfig.get_config_var("prefix"): PYTHON,
        sysconfig.get_config_var("LIBDIR"): "/python-libraries",
        environment(packages, folder): "/environment",
        backends(installation, folder): "/backends",
        repository: "/repository",
    }
    variables = {
        "VIRTUAL_ENV": "/environment",
        "PATH": "/environment/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": f"{packages / installation.libraries.name}:/python-libraries",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    options = [
        *(word for here, inside in mounts.items() for word in ("--volume", f"{here}:{inside}:ro")),
        *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
    ]
    with podman.container(
        debian, "ldd", f"/backends/python/{installation.stub.name}", options=options
    ) as container:
        container.wait()
        if "not found" in container.logs:
            pytest.skip(f"this machine's Python does not run in the base image: {container.logs}")
    program = INSIDE / installation.program.relative_to(ENVIRONMENT)
    command = [
        str(program),
        f"--model-repository={REPOSITORY}",
        "--backend-directory=/backends",
        "--allow-gpu-metrics=false",
    ]
    with podman.container(debian, *command, options=options) as container:
        address = f"http://{container.address}:{PORTS['http']}/v2/health/ready"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_ready(address):
            assert container.is_running, container.logs
            assert time.monotonic() < deadline, container.logs
            time.sleep(0.2)
        yield container


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except OSError:
        return False


def test_encode_in_a_container_writes_the_librarys_payloads(
    podman: Podman, repository: str, work: str, answers: LibraryAnswers
) -> None:
    assert payloads_of(podman, work) == answers.payloads


def payloads_of(podman: Podman, work: str) -> list[bytes]:
    """Read what ``ccr-deploy encode`` wrote, in the order of the images."""
    folder = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", work).stdout.strip())
    paths = sorted((folder / "payloads").rglob("*.ccr"), key=lambda path: int(path.stem.partition(".")[0]))
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("protocol", CLIENTS)
def test_payloads_of_a_container_get_the_librarys_labels(
    podman: Podman, server: Container, work: str, answers: LibraryAnswers, protocol: str
) -> None:
    payloads = np.array([[payload] for payload in payloads_of(podman, work)], dtype=np.object_)
    library: Any = CLIENTS[protocol]
    with library.InferenceServerClient(f"{server.address}:{PORTS[protocol]}") as client:
        tensor = library.InferInput("payload", list(payloads.shape), "BYTES")
        tensor.set_data_from_numpy(payloads)
        outputs = [library.InferRequestedOutput("logits", class_count=1)]
        rows = client.infer("payload_to_label", [tensor], outputs=outputs).as_numpy("logits")
    cells = [row[0].decode().split(":", 2) for row in rows.reshape(-1, 1)]
    assert [(int(label), name) for _, label, name in cells] == answers.labels


def test_the_server_cannot_change_files(server: Container) -> None:
    assert server.inspect("{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}") == "10001:10001 true"
    assert server.inspect("{{.EffectiveCaps}} {{.BoundingCaps}}") == "[] []"
    assert "Read-only file system" in server.execute("touch", f"{REPOSITORY}/file").stderr
