"""Run ``ccr-deploy serve`` as users do: in a separate process, on free ports of 127.0.0.1."""

from __future__ import annotations

import http.client
import json
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.hosts.processes import PATIENCE_SECONDS, end_session, hearing_ctrl_c

if TYPE_CHECKING:
    from types import TracebackType

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

ROOT = Path(__file__).parents[2]
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0")


def command(bundle: Bundle, store: EngineStore, *options: str) -> list[str]:
    """Return the command ``ccr-deploy serve`` with an engine store, for the target cpu."""
    serve = [sys.executable, "-m", "ccr_deploy", "serve", str(bundle.path), "--target", "cpu"]
    return [*serve, "--engines", str(store.path), *options]


class ServerProcess:
    """A running server and its output. A context manager; sends SIGTERM at the end if it still runs."""

    def __init__(
        self,
        bundle: Bundle,
        store: EngineStore,
        *options: str,
        gates: Path | None = None,
        settings: dict[str, Any] | None = None,
        open_files: int | None = None,
    ) -> None:
        """Start the command with options; if `gates` is given, `tests.support.gated_server` with settings."""
        gated = [
            sys.executable,
            "-m",
            "tests.support.gated_server",
            str(bundle.path),
            str(store.path),
            str(gates),
        ]
        arguments = command(bundle, store, "--json", *FREE_PORTS, *options)
        if gates:
            arguments = [*gated, json.dumps(settings or {})]
        if open_files:
            arguments = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *arguments]
        with hearing_ctrl_c():
            self.process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        read = (self._read_events, self._read_errors)
        self._readers = [threading.Thread(target=reading) for reading in read]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> ServerProcess:
        try:
            listening = self.wait_for("listening")
        except BaseException:
            self._end()
            raise
        self.http_address = f"127.0.0.1:{listening['http_port']}"
        self.grpc_address = f"127.0.0.1:{listening['grpc_port']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                assert self.process.wait(timeout=PATIENCE_SECONDS) == 0 or error
        finally:
            self._end()

    def _end(self) -> None:
        end_session(self.process)
        for reader in self._readers:
            reader.join()

    @property
    def errors(self) -> str:
        """The text on stderr so far."""
        return "".join(self._errors)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next event, which must have this name."""
        line = self._lines.get(timeout=PATIENCE_SECONDS)
        assert line, f"the server ended: {self.errors}"
        found: dict[str, Any] = json.loads(line)
        assert found["event"] == event
        return found

    def http(self, **options: Any) -> tritonclient.http.InferenceServerClient:
        """Return an HTTP client, with one connection by default."""
        return tritonclient.http.InferenceServerClient(self.http_address, **options)

    def grpc(self) -> tritonclient.grpc.InferenceServerClient:
        """Return a gRPC client."""
        return tritonclient.grpc.InferenceServerClient(self.grpc_address)

    def metrics(self) -> dict[tuple[str, str, str], float]:
        """Return the values of all metrics, by sample, model and reason."""
        connection = http.client.HTTPConnection(self.http_address, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return {
            (sample.name, sample.labels.get("model_name", ""), sample.labels.get("reason", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def _read_events(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._errors.append(line)
