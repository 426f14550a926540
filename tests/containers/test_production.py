"""The cpu image as in production: unprivileged, read-only, without a network, one CPU and 512 MiB."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.processes import PATIENCE_SECONDS
from tests.containers.library import library_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hosts.podman import Container, Podman
    from ccr_deploy.bundle.reader import Bundle
    from tests.containers.library import LibraryAnswers
    from tests.support.demo import CalibratedDemo

INSIDE = """
import json, os, socket
def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "root": attempt(lambda: open("/new", "w")),
    "bundle": attempt(lambda: open("/bundle/manifest.json", "a")),
    "program": attempt(lambda: open("/opt/ccr-deploy/new", "w")),
    "network": attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
    "capabilities": status["CapEff"],
    "privileges": status["NoNewPrivs"],
}))
"""


@pytest.fixture(scope="module")
def expected(
    bundle: Bundle, calibrated_demo: CalibratedDemo, tmp_path_factory: pytest.TempPathFactory
) -> LibraryAnswers:
    """The library's results outside of a container, on the target of the image."""
    images, engines = calibrated_demo.folder / "images", tmp_path_factory.mktemp("engines")
    return library_answers(bundle, "cpu-openvino", images, engines)


@pytest.fixture
def engines(podman: Podman) -> Iterator[str]:
    """A new volume for engines."""
    with podman.volume() as volume:
        yield volume


@pytest.fixture(scope="module")
def server(podman: Podman, cpu_image: str) -> Iterator[Container]:
    """A server that is ready."""
    with podman.volume() as volume, podman.container(cpu_image, options=on(volume)) as container:
        container.wait_until_healthy()
        yield container


def on(volume: str) -> list[str]:
    return ["--volume", f"{volume}:/engines"]


def files(podman: Podman, volume: str) -> dict[str, int]:
    """Return the files of a volume, with the times of their last changes."""
    folder = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", volume).stdout.strip())
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_container_is_confined(server: Container) -> None:
    found = json.loads(server.execute("python3", "-c", INSIDE).stdout)
    assert found == {
        "user": [10001, 10001],
        "root": "OSError",
        "bundle": "PermissionError",
        "program": "OSError",
        "network": "OSError",
        "capabilities": "0000000000000000",
        "privileges": "1",
    }


@pytest.mark.parametrize(("protocol", "port"), [("http", 8080), ("grpc", 9000)])
def test_the_server_gives_the_results_of_the_library(
    server: Container, expected: LibraryAnswers, protocol: str, port: int
) -> None:
    expected.check(f"{server.address}:{port}", protocol)


def test_the_log_has_only_the_expected_lines(server: Container) -> None:
    lines = server.logs.splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith(("listening", "ready"))] == [
        "listening",
        "ready",
    ]
    known = ("target:", "encoder fp32", "classifier fp32", "  /engines/", "listening:", "ready:")
    assert [line for line in lines if not line.startswith(known)] == []


def test_threads_follow_the_quota_of_processor_time(server: Container) -> None:
    doctor = server.execute("ccr-deploy", "doctor", "--json")
    assert json.loads(doctor.stdout)["usable_cores"] == 1


def test_the_first_start_builds_and_the_second_does_not(podman: Podman, cpu_image: str, engines: str) -> None:
    with podman.container(cpu_image, options=on(engines)) as first:
        first.wait_until_healthy()
        assert first.logs.count(", built in ") == 2
    built = files(podman, engines)
    with podman.container(cpu_image, options=on(engines)) as second:
        second.wait_until_healthy()
        assert second.logs.count("reused from the engine store") == 2
    assert {name for name, changed in files(podman, engines).items() if built.get(name) != changed} <= {
        name for name in built if name.endswith(".json") and "/" not in name
    }


def test_a_killed_first_start_does_not_affect_the_next(
    podman: Podman, cpu_image: str, engines: str, expected: LibraryAnswers
) -> None:
    with podman.container(cpu_image, options=on(engines)) as killed:
        while killed.is_running and not files(podman, engines):
            time.sleep(0.001)
        podman("kill", "--signal", "KILL", killed.number)
        assert killed.wait() == 137
    assert files(podman, engines)
    with podman.container(cpu_image, options=on(engines)) as again:
        again.wait_until_healthy()
        expected.check(f"{again.address}:8080", "http")
    left = files(podman, engines)
    assert [name for name in left if "partial" in name or "tmp" in name] == []


def test_two_containers_start_on_one_volume(
    podman: Podman, cpu_image: str, engines: str, expected: LibraryAnswers
) -> None:
    with (
        podman.container(cpu_image, options=on(engines)) as one,
        podman.container(cpu_image, options=on(engines)) as other,
    ):
        for server in (one, other):
            server.wait_until_healthy()
            expected.check(f"{server.address}:8080", "http")
    assert len([name for name in files(podman, engines) if name.endswith(".blob")]) == 2


def test_the_health_check_turns_healthy_and_unhealthy(podman: Podman, cpu_image: str, engines: str) -> None:
    with podman.container(cpu_image, options=on(engines)) as server:
        assert not server.is_healthy()
        server.wait_until_healthy()
        podman("kill", "--signal", "STOP", server.number)
        assert not server.is_healthy()
        podman("kill", "--signal", "CONT", server.number)
        server.wait_until_healthy()


def test_requests_in_flight_are_answered_after_sigterm(
    podman: Podman, cpu_image: str, engines: str, bundle: Bundle
) -> None:
    contract = bundle.manifest.contract
    tensor = {"name": "code", "datatype": "UINT8", "shape": [1, contract.code_bytes]}
    body = json.dumps({"inputs": [tensor | {"data": [0] * contract.code_bytes}]}).encode()
    head = b"POST /v2/models/classifier/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with podman.container(cpu_image, options=on(engines)) as server:
        server.wait_until_healthy()
        with socket.create_connection((server.address, 8080), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(head + body[:10])
            time.sleep(0.2)  # the server reads it
            podman("kill", "--signal", "TERM", server.number)
            while server.is_healthy():
                time.sleep(0.05)
            connection.sendall(body[10:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0


def test_a_command_that_is_the_first_process_ends_at_sigterm(
    podman: Podman, cpu_image: str, engines: str
) -> None:
    """As an init container on Kubernetes, where no shell stands before it."""
    options = [*on(engines), "--entrypoint", "ccr-deploy"]
    command = ("build-engine", "--target", "cpu-openvino", "--int8")
    with podman.container(cpu_image, *command, options=options) as builder:
        while "target:" not in builder.logs:
            assert builder.is_running, builder.logs
        podman("kill", "--signal", "TERM", builder.number)
        assert builder.wait() == 143


def test_a_damaged_bundle(
    podman: Podman, cpu_image: str, engines: str, bundle: Bundle, tmp_path: Path
) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    for graph in copy.glob("encoder.fp32.*"):
        graph.write_bytes(graph.read_bytes()[:-100])
    options = [*on(engines), "--volume", f"{copy}:/bundle:ro"]
    ends_with_one_line(podman, cpu_image, options, 3, "/bundle/encoder.fp32")


def test_no_bundle(podman: Podman, cpu_image: str, engines: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    options = [*on(engines), "--volume", f"{tmp_path}:/bundle:ro"]
    ends_with_one_line(podman, cpu_image, options, 2, "/bundle: no bundle found")


def test_a_full_volume(podman: Podman, cpu_image: str) -> None:
    small = ["--tmpfs", "/small:size=256k,mode=1777", "--env", "CCR_DEPLOY_ENGINES=/small/engines"]
    ends_with_one_line(podman, cpu_image, small, 3, "No space left on device")


def test_a_volume_of_another_user(podman: Podman, cpu_image: str) -> None:
    theirs = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=uid=10002,mode=0755")
    with podman.volume(*theirs) as volume:
        ends_with_one_line(podman, cpu_image, on(volume), 3, "CCR_DEPLOY_SHARED_ENGINES=1")


def ends_with_one_line(podman: Podman, image: str, options: list[str], status: int, message: str) -> None:
    """Check that a container ends with a status and one line that holds a message."""
    with podman.container(image, options=options) as server:
        ended = server.wait()
        errors = podman("logs", server.number).stderr.splitlines()
        assert (ended, len(errors)) == (status, 1), errors
        assert message in errors[0]


def test_too_little_memory_for_the_build_is_reported(podman: Podman, cpu_image: str, engines: str) -> None:
    options = [*on(engines), "--memory", "24m", "--memory-swap", "24m"]
    with podman.container(cpu_image, options=options) as server:
        assert server.wait() == 137
        assert "the container may use 24 MiB: give it more memory" in server.logs
