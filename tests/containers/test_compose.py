"""``deploy/compose.yaml`` with podman-compose: build, serve, send requests, stop, start again, remove."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.clients import CLIENTS
from benchmarks.hosts.podman import Container
from benchmarks.hosts.processes import PATIENCE_SECONDS, free_ports, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hosts.podman import Podman
    from tests.containers.library import LibraryAnswers

FILE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
ENGINES = "ccr-deploy_engines"
MIB = 2**20


@dataclass(frozen=True)
class Compose:
    """The compose file, with its profile cpu and variables of its own."""

    podman: Podman
    variables: dict[str, str]

    def __call__(self, *arguments: str, expected: int = 0) -> str:
        """Run ``podman-compose ARGUMENTS``, and return what it printed."""
        program = Path(sys.executable).with_name("podman-compose")
        command = [program, "--file", FILE, "--profile", "cpu", *arguments]
        environment = self.podman.environment | self.variables
        options = {"cwd": self.podman.folder, "stdout": PIPE, "stderr": STDOUT}
        with started(command, env=environment, **options) as process:
            output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == expected, output
        return output

    def address(self, protocol: str) -> str:
        return f"127.0.0.1:{self.variables[f'CCR_DEPLOY_{protocol.upper()}_PORT']}"

    @property
    def builder(self) -> Container:
        return Container(self.podman, "ccr-deploy_build-cpu_1")

    @property
    def server(self) -> Container:
        return Container(self.podman, "ccr-deploy_server-cpu_1")

    def left(self) -> dict[str, list[str]]:
        """Return the names of the project's containers, volumes and networks, by kind."""
        asked = {
            "containers": ("ps", "--all", "--format", "{{.Names}}"),
            "pods": ("pod", "ps", "--format", "{{.Name}}"),
            "volumes": ("volume", "ls", "--format", "{{.Name}}"),
            "networks": ("network", "ls", "--format", "{{.Name}}"),
        }
        listed = {kind: self.podman(*command).stdout.split() for kind, command in asked.items()}
        return {kind: [name for name in names if "ccr-deploy" in name] for kind, names in listed.items()}


def check_confinement_and_limits(compose: Compose) -> None:
    for container in (compose.builder, compose.server):
        assert container.inspect("{{.Config.User}}") == "10001:10001"
        assert container.inspect("{{.HostConfig.ReadonlyRootfs}}") == "true"
        assert container.inspect("{{.EffectiveCaps}} {{.BoundingCaps}}") == "[] []"
        assert container.inspect("{{.HostConfig.SecurityOpt}}") == "[no-new-privileges]"
        assert container.inspect("{{.HostConfig.Memory}}") == str(512 * MIB)
        assert container.inspect("{{.HostConfig.NanoCpus}}") == str(10**9)
    status = compose.server.execute("cat", "/proc/1/status").stdout
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    published = compose.podman("port", compose.server.number).stdout.splitlines()
    assert sorted(line.partition(" -> ")[2] for line in published) == sorted(map(compose.address, CLIENTS))


@pytest.fixture
def compose(podman: Podman, cpu_image: str) -> Iterator[Compose]:
    http, grpc = free_ports(2)
    variables = {
        "CCR_DEPLOY_IMAGE": cpu_image,
        "CCR_DEPLOY_HTTP_PORT": str(http),
        "CCR_DEPLOY_GRPC_PORT": str(grpc),
        "CCR_DEPLOY_CPUS": "1",
        "CCR_DEPLOY_MEMORY": "512m",
    }
    compose = Compose(podman, variables)
    try:
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "0")


def test_up_builds_and_serves_and_a_second_up_builds_nothing_again(
    compose: Compose, answers: LibraryAnswers
) -> None:
    compose("up", "--detach")
    compose.server.wait_until_healthy()
    assert "built in" in compose.builder.logs
    check_confinement_and_limits(compose)
    for protocol in CLIENTS:
        answers.check(compose.address(protocol), protocol)

    compose("down")
    assert compose.left() == {"containers": [], "pods": [], "volumes": [ENGINES], "networks": []}

    compose("up", "--detach")
    compose.server.wait_until_healthy()
    assert "reused from the engine store" in compose.builder.logs
    assert "built in" not in compose.builder.logs
    answers.check(compose.address("http"), "http")

    compose("down", "--volumes")
    assert compose.left() == {"containers": [], "pods": [], "volumes": [], "networks": []}


def test_a_missing_image_name_is_an_error_of_one_line(podman: Podman) -> None:
    printed = Compose(podman, {"CCR_DEPLOY_IMAGE": ""})("up", "--detach", expected=1)
    assert "set it to the image that contains ccr-deploy and the bundle" in printed
