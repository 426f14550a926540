"""The images of every stage of the Dockerfile, as far as they run without a GPU.

The bases of `server` and `jetson` are stand-ins for NVIDIA's images: Debian with TensorRT-RTX, and an older
NumPy, among the system's own Python packages.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.context import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hosts.podman import Container, Podman

STAGES = ("cpu", "server", "jetson")
UNWANTED = ("torch", "modelopt", "kubernetes", "pandas", "pip", "openvino_telemetry")
ROOM = ("--memory", "4g", "--memory-swap", "4g")
"""Compiling kernels for five compute capabilities takes more than serving."""
PACKAGES = """
import importlib.util, json, sys
json.dump({
    "python": sys.prefix,
    "numpy": importlib.util.find_spec("numpy").origin,
    "unwanted": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
}, sys.stdout)
"""


@pytest.fixture(scope="module", params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, stage: str) -> str:
    tag: str = request.getfixturevalue(f"{stage}_image")
    return tag


@pytest.fixture(scope="module")
def idle(podman: Podman, image: str) -> Iterator[Container]:
    """A container of the image that waits."""
    with podman.container(image, "600", options=["--entrypoint", "sleep"]) as container:
        yield container


def test_the_image_is_unprivileged_and_has_a_health_check(podman: Podman, image: str) -> None:
    (configuration,) = json.loads(podman("inspect", image).stdout)
    settings = configuration["Config"]
    assert settings["User"] == "10001:10001"
    assert settings["Entrypoint"] == ["start.sh"]
    assert settings["Cmd"] == ["serve"]
    assert set(settings["Volumes"]) == {"/engines"}
    assert set(settings["ExposedPorts"]) == {"8080/tcp", "9000/tcp"}
    assert configuration["Healthcheck"]["Test"] == ["CMD", "start.sh", "healthy"]


def test_every_user_can_read_the_bundle_in_the_image(idle: Container) -> None:
    assert idle.execute("sh", "-c", "ls /bundle && cat /bundle/* >/dev/null").returncode == 0
    assert idle.execute("find", "/bundle", "-perm", "/022").stdout == ""
    assert idle.execute("find", "/bundle", "!", "-user", "root").stdout == ""


def test_the_image_contains_no_engine(idle: Container) -> None:
    assert idle.execute("find", "/engines", "-mindepth", "1").stdout == ""


def test_the_image_contains_only_the_required_packages(idle: Container, stage: str) -> None:
    found = json.loads(idle.execute("python3", "-c", PACKAGES, *UNWANTED).stdout)
    assert found["python"] == "/opt/ccr-deploy"
    # pip is the base's own, which the environment sees in every stage but cannot be used for it.
    assert set(found["unwanted"]) <= {"pip"}
    assert found["numpy"].startswith("/opt/ccr-deploy/")


def test_the_image_has_the_locked_versions(idle: Container, stage: str) -> None:
    lock = "cpu" if stage == "cpu" else "tensorrt"
    program = (
        "import importlib.metadata as m\n"
        "for d in m.distributions(path=__import__('glob').glob('/opt/ccr-deploy/lib/*/site-packages')):\n"
        "    print(d.metadata['Name'].lower().replace('_', '-').replace('.', '-'), d.version)"
    )
    installed = dict(line.split() for line in idle.execute("python3", "-c", program).stdout.splitlines())
    assert installed.pop("ccr-deploy")
    text = (ROOT / "deploy" / "container" / f"requirements-{lock}.txt").read_text(encoding="utf-8")
    locked = {line.split()[0] for line in text.splitlines() if "==" in line}
    assert {f"{name}=={version}" for name, version in installed.items()} <= locked
    assert len(installed) > 20


def test_no_target_without_a_gpu_but_the_cpus(podman: Podman, server_image: str, jetson_image: str) -> None:
    for image in (server_image, jetson_image):
        with podman.container(image) as container:
            assert container.wait() == 3
            errors = podman("logs", container.number).stderr.splitlines()
            assert len(errors) == 1, errors


def test_the_systems_tensorrt_builds_for_absent_gpus(podman: Podman, server_image: str) -> None:
    with podman.volume() as engines:
        options = [*ROOM, "--volume", f"{engines}:/engines", "--env", "CCR_DEPLOY_TARGET=rtx"]
        with podman.container(server_image, "build", options=options) as builder:
            assert builder.wait() == 0, builder.logs
            assert builder.logs.count(", built in ") == 2
        with podman.container(server_image, "serve", options=options) as server:
            assert server.wait() == 3
            assert server.logs.count("reused from the engine store") == 2
            errors = podman("logs", server.number).stderr.splitlines()
            assert len(errors) == 1, errors
            assert "GPU" in errors[0] or "driver" in errors[0]
