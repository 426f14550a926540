"""Which hosts and clients the local server answers, without a server."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from ccr_deploy.serving.client_limits import ConnectionLimits
from ccr_deploy.serving.hosts import Hosts

LOOPBACK = ["localhost", "LOCALHOST.", "localhost:8080", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:8080"]
OTHERS = [
    "evil.example",
    "localhost.evil.example",
    "evil.example:8080",
    "10.0.0.1",
    "[fe80::1]",
    "[::1",
    "",
    ":",
]


@pytest.mark.parametrize("listening", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_address_allows_loopback_and_given_hosts(listening: str) -> None:
    hosts = Hosts.of(listening)
    assert all(map(hosts.allows, LOOPBACK))
    assert not any(map(hosts.allows, OTHERS))
    more = Hosts.of(listening, ["Gateway.example"])
    assert all(map(more.allows, [*LOOPBACK, "gateway.EXAMPLE:80"]))
    assert not any(map(more.allows, OTHERS))


@pytest.mark.parametrize("listening", ["0.0.0.0", "::", "10.0.0.1", "server.example"])  # noqa: S104
def test_other_address_allows_any_host_unless_some_are_given(listening: str) -> None:
    assert all(map(Hosts.of(listening).allows, [*LOOPBACK, *OTHERS]))
    some = Hosts.of(listening, ["gateway.example"])
    assert all(map(some.allows, [*LOOPBACK, "gateway.example"]))
    assert not any(map(some.allows, OTHERS))


@pytest.mark.parametrize("open_files", [64, 256, 1024, 4096, 1_048_576])
def test_connections_fit_into_the_limit_on_open_files(open_files: int) -> None:
    limits = ConnectionLimits.within(open_files)
    assert 1 <= limits.http <= 1000
    assert 1 <= limits.grpc <= 1000
    if open_files > 200:
        assert limits.http + limits.health + limits.grpc < open_files - 100
    assert limits.health >= 32


def test_a_low_soft_limit_on_open_files_is_raised_as_far_as_needed() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = "from ccr_deploy.serving.client_limits import allow_open_files; print(allow_open_files())"
    command = ["sh", "-c", 'ulimit -S -n 100 && exec "$@"', "sh", sys.executable, "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    raised = int(finished.stdout)
    assert 100 < raised <= hard or hard <= 100
    wanted = ConnectionLimits.within(raised)
    assert wanted == ConnectionLimits.within(hard)
