"""The local server under load and during faults: every request is answered or rejected, none is lost."""

from __future__ import annotations

import collections
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from benchmarks.hosts.processes import PATIENCE_SECONDS, free_ports
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier
from tests.support.server_process import FREE_PORTS, ROOT, ServerProcess, command

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle

CODES = np.random.default_rng(5).integers(0, 256, (64, 12), dtype=np.uint8)
BUSY = {"503", "StatusCode.UNAVAILABLE"}


def classify(client: Any, codes: np.ndarray[Any, Any]) -> list[bytes]:
    """The labels of codes ``uint8 [N, 12]``."""
    over_http = isinstance(client, tritonclient.http.InferenceServerClient)
    library = tritonclient.http if over_http else tritonclient.grpc
    tensor = library.InferInput("code", list(codes.shape), "UINT8")
    tensor.set_data_from_numpy(codes)
    labels: list[bytes] = list(client.infer("classifier", [tensor]).as_numpy("label"))
    return labels


def until(condition: Any) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def metric(server: ServerProcess, name: str) -> float:
    """Return one of the classifier's metrics."""
    return server.metrics()[name, "classifier", ""]


def failing(*arguments: str) -> tuple[int, str]:
    """The exit status of a command that fails, and its one line on stderr."""
    finished = subprocess.run(list(arguments), capture_output=True, text=True, check=False, cwd=ROOT)
    (line,) = finished.stderr.splitlines()
    return finished.returncode, line


def refuses_connections(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture(scope="module")
def labels(tiny_bundle: Bundle, built_store: EngineStore) -> list[bytes]:
    """The labels that the tiny bundle's classifier returns for CODES."""
    names = tiny_bundle.manifest.class_names
    with Classifier.load(tiny_bundle, "cpu", built_store) as classifier:
        logits = classifier._runner.infer({"code": CODES})["logits"]
    return [names[int(row.argmax())].encode() for row in logits]


@pytest.mark.parametrize(
    ("requests", "max_waiting"), [(2000, 4), pytest.param(20_000, 64, marks=pytest.mark.slow)]
)
def test_each_request_of_32_clients_is_answered_or_refused(
    tiny_bundle: Bundle, built_store: EngineStore, labels: list[bytes], requests: int, max_waiting: int
) -> None:
    """More requests than can run at once: responses are right, refusals have a reason, none is lost."""
    counts: collections.Counter[str] = collections.Counter()
    counting = threading.Lock()

    def send(number: int) -> None:
        client = server.http() if number % 2 else server.grpc()
        mine: collections.Counter[str] = collections.Counter()
        for turn in range(number, requests, 32):
            code = turn % len(CODES)
            try:
                right = classify(client, CODES[code : code + 1]) == labels[code : code + 1]
                mine["right" if right else "wrong"] += 1
            except InferenceServerException as error:
                mine["busy" if error.status() in BUSY and "wait" in error.message() else str(error)] += 1
        client.close()
        with counting:
            counts.update(mine)

    limits = ("--max-batch", "4", "--max-waiting", str(max_waiting))
    with ServerProcess(tiny_bundle, built_store, *limits) as server:
        server.wait_for("ready")
        clients = [threading.Thread(target=send, args=(number,)) for number in range(32)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert set(counts) <= {"right", "busy"}
        assert counts["right"] > 0
        assert counts.total() == requests
        with server.http() as client:
            assert classify(client, CODES[:4]) == labels[:4]
    assert server.errors == ""


def test_server_is_live_at_once_and_ready_after_the_warm_up(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    server = ServerProcess(tiny_bundle, built_store, gates=tmp_path)
    with server, server.http() as over_http, server.grpc() as over_grpc:
        for gate in ("load", "run"):
            for client in (over_http, over_grpc):
                assert client.is_server_live()
                assert not client.is_server_ready()
                assert not client.is_model_ready("classifier")
                with pytest.raises(InferenceServerException, match="not ready") as raised:
                    classify(client, CODES[:1])
                assert raised.value.status() in BUSY
                assert not client.is_model_ready("classifier")  # the request did not make it so
            (tmp_path / gate).touch()
        server.wait_for("ready")
        for client in (over_http, over_grpc):
            assert client.is_server_ready()
            assert client.is_model_ready("classifier")
            assert len(classify(client, CODES[:1])) == 1


def test_sigterm_while_engines_load_ends_it_cleanly(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    with ServerProcess(tiny_bundle, built_store, gates=tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses_connections(server.http_address))
        for gate in ("load", "run"):
            (tmp_path / gate).touch()
        server.wait_for("stopped")
        assert server.process.wait(PATIENCE_SECONDS) == 0
    assert server.errors == ""


def test_requests_that_wait_run_together_and_those_beyond_the_limit_are_refused(
    tiny_bundle: Bundle, built_store: EngineStore, labels: list[bytes], tmp_path: Path
) -> None:
    for gate in ("load", "run"):
        (tmp_path / gate).touch()
    server = ServerProcess(tiny_bundle, built_store, gates=tmp_path)
    with server, server.http() as over_http, server.grpc() as over_grpc:
        server.wait_for("ready")
        (tmp_path / "run").unlink()
        answers: dict[int, list[bytes]] = {}
        clients = []
        # One image is running, and eight wait, in requests of 1, 2, 1, 3 and 1: two full runs of four.
        for start, size in ((0, 1), (1, 1), (2, 2), (4, 1), (5, 3), (8, 1)):

            def send(start: int = start, size: int = size) -> None:
                with server.grpc() as client:
                    answers[start] = classify(client, CODES[start : start + size])

            def waits(last: int = start + size - 1) -> bool:
                held = (tmp_path / "held").exists()
                return held and metric(server, "ccr_deploy_waiting_images") == last

            clients.append(threading.Thread(target=send))
            clients[-1].start()
            until(waits)
        for client in (over_http, over_grpc):
            with pytest.raises(InferenceServerException, match="8 images are waiting") as raised:
                classify(client, CODES[:1])
            assert raised.value.status() in BUSY
            assert client.is_server_ready()  # it is busy, not broken
        (tmp_path / "run").touch()
        for thread in clients:
            thread.join()
        assert {start: labels[start : start + len(found)] for start, found in answers.items()} == answers
        assert sorted(answers) == [0, 1, 2, 4, 5, 8]
        assert metric(server, "ccr_deploy_run_images_count") == 3
        assert metric(server, "ccr_deploy_run_images_sum") == 9


class HalfSentRequest:
    """A classification of which the server has read the head, and waits for the body."""

    def __init__(self, server: ServerProcess) -> None:
        tensor = {"name": "code", "datatype": "UINT8", "shape": [1, 12], "data": [7] * 12}
        self._body = json.dumps({"inputs": [tensor]}).encode()
        host, port = server.http_address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self.socket.sendall(
            b"POST /v2/models/classifier/infer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(self._body)
        )
        assert self.socket.recv(64).startswith(b"HTTP/1.1 100 Continue")

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Send the rest, and return the response."""
        self.socket.sendall(self._body)
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_requests_in_flight(
    tiny_bundle: Bundle, built_store: EngineStore, number: signal.Signals
) -> None:
    limits = ("--max-batch", "1", "--max-waiting", "1000")
    with ServerProcess(tiny_bundle, built_store, *limits) as server, server.grpc() as client:
        server.wait_for("ready")
        half_sent = HalfSentRequest(server)
        outcomes: collections.Counter[str] = collections.Counter()
        ended = threading.Semaphore(0)

        def count(result: Any, error: InferenceServerException | None) -> None:
            outcomes[error.status() if error else "answered"] += 1
            ended.release()

        tensor = tritonclient.grpc.InferInput("code", [1, 12], "UINT8")
        tensor.set_data_from_numpy(CODES[:1])
        for _ in range(40):
            client.async_infer("classifier", [tensor], count)
        assert ended.acquire(timeout=PATIENCE_SECONDS)  # the server is at them
        server.process.send_signal(number)
        until(lambda: refuses_connections(server.http_address))
        assert server.process.poll() is None  # it waits for the request that is half sent
        status, answer = half_sent.finish()
        assert status == 200
        assert [output["shape"] for output in answer["outputs"]] == [[1, 5], [1]]
        server.wait_for("stopped")
        assert server.process.wait(PATIENCE_SECONDS) == 0
        for _ in range(39):
            assert ended.acquire(timeout=PATIENCE_SECONDS)
    assert outcomes == {"answered": 40}
    assert server.errors == ""


def test_clients_that_disconnect_do_not_affect_others(
    tiny_bundle: Bundle, built_store: EngineStore, labels: list[bytes]
) -> None:
    with ServerProcess(tiny_bundle, built_store) as server, server.http() as client:
        server.wait_for("ready")
        for _ in range(20):
            HalfSentRequest(server).socket.close()
            impatient = server.grpc()
            tensor = tritonclient.grpc.InferInput("code", [1, 12], "UINT8")
            tensor.set_data_from_numpy(CODES[:1])
            impatient.async_infer("classifier", [tensor], lambda **_: None).cancel()
            impatient.close()
            assert classify(client, CODES[:2]) == labels[:2]
    assert server.errors == ""


def test_invalid_bytes_do_not_affect_other_clients(
    tiny_bundle: Bundle, built_store: EngineStore, labels: list[bytes]
) -> None:
    with ServerProcess(tiny_bundle, built_store) as server, server.http() as client, server.grpc() as second:
        server.wait_for("ready")
        generator = np.random.default_rng(3)
        for address in (server.http_address, server.grpc_address):
            host, port = address.split(":")
            for _ in range(10):
                with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
                    connection.sendall(generator.bytes(300))
        assert classify(client, CODES[:2]) == labels[:2]
        assert classify(second, CODES[:2]) == labels[:2]


def test_a_killed_server_is_started_again_on_its_ports(
    tiny_bundle: Bundle, built_store: EngineStore, labels: list[bytes]
) -> None:
    http_port, grpc_port = free_ports(2)
    ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
    with ServerProcess(tiny_bundle, built_store, *ports) as first:
        first.wait_for("ready")
        over_http, over_grpc = first.http(), first.grpc()
        for client in (over_http, over_grpc):
            assert classify(client, CODES[:2]) == labels[:2]
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(PATIENCE_SECONDS)
    with ServerProcess(tiny_bundle, built_store, *ports) as second:
        second.wait_for("ready")
        for client in (over_http, over_grpc):

            def answers(client: Any = client) -> bool:
                try:
                    return classify(client, CODES[:2]) == labels[:2]
                except (InferenceServerException, OSError):
                    return False  # what was open to the killed server breaks once

            until(answers)
            client.close()


def test_an_engine_file_that_is_swapped_while_serving_changes_nothing_until_a_restart(
    tiny_bundle: Bundle, own_store: EngineStore, labels: list[bytes]
) -> None:
    with ServerProcess(tiny_bundle, own_store) as server, server.http() as client:
        server.wait_for("ready")
        assert classify(client, CODES[:4]) == labels[:4]
        (engine,) = own_store.path.glob("*/classifier.fp32.onnx")
        other = engine.with_name("other")
        other.write_bytes(b"another engine")
        other.replace(engine)
        assert classify(client, CODES[4:8]) == labels[4:8]
    status, line = failing(*command(tiny_bundle, own_store))
    assert (status, "damaged or changed" in line) == (3, True)


def test_an_engine_that_cannot_be_loaded_ends_the_server_with_one_line(
    tiny_bundle: Bundle, own_store: EngineStore
) -> None:
    (engine,) = own_store.path.glob("*/classifier.fp32.onnx")
    before = sha256_of(engine)
    engine.write_bytes(b"no engine, though its sidecar knows it")
    sidecar = engine.with_name(engine.name + ".json")
    sidecar.write_text(sidecar.read_text().replace(before, sha256_of(engine)))
    with ServerProcess(tiny_bundle, own_store) as server:
        assert server.process.wait(PATIENCE_SECONDS) == 3
    (line,) = server.errors.splitlines()
    assert "cannot load it" in line


def test_a_port_in_use_is_an_error_of_one_line(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--http-port", "--grpc-port"):
            status, line = failing(*command(tiny_bundle, built_store, *FREE_PORTS, option, port))
            assert status == 3
            assert f"127.0.0.1:{port}" in line
            assert option in line


def test_engines_must_be_built_and_limits_must_fit(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    status, line = failing(*command(tiny_bundle, EngineStore(tmp_path)))
    assert (status, "ccr-deploy build-engine" in line) == (2, True)
    status, line = failing(*command(tiny_bundle, built_store, "--max-batch", "8", "--max-waiting", "4"))
    assert (status, "raise --max-waiting" in line) == (2, True)
