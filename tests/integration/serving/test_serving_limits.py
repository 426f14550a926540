"""The local server and clients that send too much, too slowly, too often, or with another Host header."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from tritonclient.utils import InferenceServerException

from benchmarks.hosts.processes import PATIENCE_SECONDS
from tests.support.raw_http import (
    BODY,
    INFER,
    LIVE,
    WHOLE_INFERENCE,
    ask,
    classifier_answers,
    connect,
    is_closed,
    read_answer,
)
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import tritonclient.grpc

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

SHORT = {"head": 1, "request": 2, "answer": 1, "idle": 1.5}
LIMIT = 20
READY = LIVE.replace(b"live", b"ready")
OPEN_FILES = 128 + 64 + 2 * LIMIT
"""With which 20 connections are taken, for HTTP and for gRPC."""


def ready(client: tritonclient.grpc.InferenceServerClient) -> bool:
    """Whether the server says so over gRPC."""
    try:
        return bool(client.is_server_ready())
    except InferenceServerException:
        return False


def refusals(server: ServerProcess) -> dict[str, float]:
    """How many requests the server has rejected so far, by reason."""
    samples = server.metrics().items()
    return {reason: value for (name, _, reason), value in samples if name == "ccr_deploy_refused_total"}


@pytest.fixture(scope="module")
def open_gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gates = tmp_path_factory.mktemp("gates")
    for gate in ("load", "run"):
        (gates / gate).touch()
    return gates


@pytest.fixture(scope="module")
def hasty(tiny_bundle: Bundle, built_store: EngineStore, open_gates: Path) -> Iterator[ServerProcess]:
    """A server with short timeouts for its clients."""
    with ServerProcess(tiny_bundle, built_store, gates=open_gates, settings={"times": SHORT}) as server:
        server.wait_for("ready")
        yield server
        assert classifier_answers(server.http_address)
        assert server.errors == ""


@pytest.fixture(scope="module")
def small(tiny_bundle: Bundle, built_store: EngineStore, open_gates: Path) -> Iterator[ServerProcess]:
    """A server that accepts few connections."""
    with ServerProcess(tiny_bundle, built_store, gates=open_gates, open_files=OPEN_FILES) as server:
        server.wait_for("ready")
        yield server
        assert server.errors == ""


LARGE = b"x" * 17_000
HEADS: dict[str, tuple[int, list[bytes]]] = {
    "a URL": (414, [b"GET /" + LARGE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
    "a URL without an end": (414, [b"GET /" + LARGE]),
    "a header": (431, [LIVE[:-2] + b"A: " + LARGE + b"\r\n\r\n"]),
    "a header without an end": (431, [LIVE[:-2] + b"A: " + LARGE[:9000], LARGE]),
    "a header's name without an end": (431, [LIVE[:-2] + LARGE[:9000], LARGE]),
    "many headers": (431, [LIVE[:-2] + b"".join(b"h%d: 1\r\n" % n for n in range(4000)) + b"\r\n"]),
    "a chunk's extension": (
        431,
        [INFER + b"Transfer-Encoding: chunked\r\n\r\n", b"5;a=" + LARGE[:9000], LARGE],
    ),
    "headers behind the body": (
        431,
        [INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: " + LARGE[:9000], LARGE],
    ),
    "just not": (200, [LIVE[:-2] + b"A: " + LARGE[:16_000] + b"\r\n\r\n"]),
}


@pytest.mark.parametrize("part", HEADS)
def test_heads_beyond_16_kib_are_refused(hasty: ServerProcess, part: str) -> None:
    status, sent = HEADS[part]
    answer = ask(hasty.http_address, *sent)
    assert (answer.status, answer.closes, bool(answer.error)) == (status, status != 200, status != 200)


@pytest.mark.parametrize(
    ("kind", "begun"),
    [("request line and headers", LIVE[:30]), ("request", INFER + b"Content-Length: 99\r\n\r\n{")],
    ids=["head", "body"],
)
def test_a_request_must_arrive_within_a_time_limit(hasty: ServerProcess, kind: str, begun: bytes) -> None:
    with connect(hasty.http_address) as connection:
        connection.sendall(begun)
        answer = read_answer(connection)
    assert (answer.status, answer.closes) == (408, True)
    assert answer.error.startswith(f"the {kind} did not arrive within")


def test_slow_bytes_do_not_extend_the_timeout(hasty: ServerProcess) -> None:
    with connect(hasty.http_address) as connection:
        assert is_closed(connection, sending=b"\r\n")  # which precede no request
    with connect(hasty.http_address) as connection:
        connection.sendall(LIVE[:-2])
        assert is_closed(connection, sending=b"a:b\r\n")


def test_idle_connections_are_closed(hasty: ServerProcess) -> None:
    with connect(hasty.http_address) as fresh, connect(hasty.http_address) as used:
        used.sendall(LIVE)
        answer = read_answer(used)
        assert (answer.status, answer.closes) == (200, False)
        assert is_closed(fresh)
        assert is_closed(used)
    with connect(hasty.grpc_address) as silent:
        assert is_closed(silent)


def test_an_idle_connection_is_kept_longer_than_uvicorns_five_seconds(small: ServerProcess) -> None:
    with connect(small.http_address) as connection:
        connection.sendall(LIVE)
        assert read_answer(connection).status == 200
        time.sleep(5.5)
        connection.sendall(LIVE)
        assert read_answer(connection).status == 200


def connect_with_small_buffers(address: str) -> socket.socket:
    """Open a connection on which the kernel buffers little, at both ends: segments and window are small."""
    host, port = address.split(":")
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    return connection


def is_closed_unread(connection: socket.socket, requests: bytes) -> bool:
    """Send requests, then empty lines, without reading responses; return whether the server closes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    connection.settimeout(0.1)
    unsent = requests
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                unsent = unsent[connection.send(unsent or b"\r\n") :]
            time.sleep(0 if unsent else 0.1)
    except ConnectionError:
        return True
    return False


def test_a_response_must_be_read_within_a_time_limit(hasty: ServerProcess) -> None:
    """A client that never reads the responses, which repeat the long ids of its requests."""
    body = json.dumps({"id": "x" * 50_000, **json.loads(BODY)}).encode()
    request = INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body
    refused, started = refusals(hasty), time.monotonic()
    with connect_with_small_buffers(hasty.http_address) as connection:
        assert is_closed_unread(connection, 10 * request)
    assert time.monotonic() - started >= SHORT["answer"]
    assert refusals(hasty) == refused


def test_slow_engine_does_not_time_out_the_client(hasty: ServerProcess, open_gates: Path) -> None:
    run = open_gates / "run"
    run.unlink()
    with connect(hasty.http_address) as connection:
        connection.sendall(WHOLE_INFERENCE)
        time.sleep(max(SHORT.values()) + 1)
        run.touch()
        assert read_answer(connection).status == 200


def test_a_websocket_is_not_opened(hasty: ServerProcess) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    answer = ask(hasty.http_address, LIVE[:-2] + upgrade + b"Sec-WebSocket-Version: 13\r\n\r\n")
    assert answer.status == 200


def test_pipelined_requests_are_answered_in_order(hasty: ServerProcess) -> None:
    none, last = LIVE.replace(b"/v2/health/live", b"/none"), LIVE[:-2] + b"Connection: close\r\n\r\n"
    with connect(hasty.http_address) as connection:
        connection.sendall(LIVE + WHOLE_INFERENCE + none + last)
        answers = b"".join(iter(lambda: connection.recv(4096), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"404", b"200"]
    for sent, most in ((LIVE * 100, 50), (WHOLE_INFERENCE + b"\0 no HTTP", 1)):
        with connect(hasty.http_address) as connection:
            connection.sendall(sent)
            answers = b"".join(iter(lambda: connection.recv(4096), b""))
        statuses = re.findall(rb"HTTP/1.1 (\d+)", answers)
        assert set(statuses) == {b"200"}
        assert len(statuses) <= most


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "169.254.169.254", ""])
def test_other_hosts_than_loopback_are_refused_on_loopback(hasty: ServerProcess, host: str) -> None:
    for request in (LIVE, WHOLE_INFERENCE):
        answer = ask(hasty.http_address, request.replace(b"Host: localhost", b"Host: " + host.encode()))
        assert (answer.status, "--allow-host" in answer.error) == (403, True)


def test_two_hosts_must_both_be_loopback(hasty: ServerProcess) -> None:
    assert ask(hasty.http_address, LIVE[:-2] + b"Host: evil.example\r\n\r\n").status in {400, 403}


def test_health_is_answered_while_idle_and_slow_clients_hold_all_connections(small: ServerProcess) -> None:
    address = small.http_address
    crowd = [connect(address) for _ in range(200)]  # ten times the limit
    for slow in crowd[::3]:
        slow.sendall(LIVE[:30])
    for path in (b"/v2/health/live", b"/v2/health/ready", b"/metrics"):
        for _ in range(5):
            answer = ask(address, LIVE.replace(b"/v2/health/live", path))
            assert (answer.status, answer.closes) == (200, True)
    answer = ask(address, WHOLE_INFERENCE)
    assert (answer.status, answer.closes, "connections" in answer.error) == (503, True, True)
    for connection in crowd:
        connection.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not classifier_answers(address):  # until it has seen that they are closed
        assert time.monotonic() < deadline


def test_health_is_answered_while_idle_clients_hold_all_of_grpcs_connections(small: ServerProcess) -> None:
    crowd = [connect(small.grpc_address) for _ in range(200)]
    for _ in range(5):
        assert ask(small.http_address, LIVE).status == 200
        assert classifier_answers(small.http_address)
    for connection in crowd:
        connection.close()
    with small.grpc() as client:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready(client):  # until it has seen that they are closed
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_stalled_body_is_cut_at_the_end_of_the_grace_time(
    tiny_bundle: Bundle, built_store: EngineStore, open_gates: Path
) -> None:
    settings = {"grace_seconds": 3}
    with ServerProcess(tiny_bundle, built_store, gates=open_gates, settings=settings) as server:
        server.wait_for("ready")
        with (
            connect(server.http_address) as stalled,
            connect(server.http_address) as half_sent,
            connect(server.http_address) as idle,
        ):
            head = INFER + b"Content-Length: %d\r\n\r\n" % len(BODY)
            stalled.sendall(head)
            half_sent.sendall(head + BODY[:10])
            idle.sendall(WHOLE_INFERENCE)
            answer = read_answer(idle)
            assert (answer.status, answer.closes) == (200, False)
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while ask(server.http_address, READY).status != 503:
                assert time.monotonic() < deadline
            idle.sendall(WHOLE_INFERENCE)
            half_sent.sendall(BODY[10:])
            for connection in (idle, half_sent):
                answer = read_answer(connection)
                assert (answer.status, answer.closes) == (200, True)
            answer = read_answer(stalled)
            assert (answer.status, answer.closes) == (503, True)
            assert "the server stopped" in answer.error
        stopped = server.wait_for("stopped")
        assert stopped["cut"] == 1
        health = 1  # that was asked at least once
        assert stopped["answered"] >= 2 + health
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert server.errors == ""
