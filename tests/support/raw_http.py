"""HTTP requests as raw bytes on sockets of 127.0.0.1, for requests that client libraries would not send."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any

DEADLINE_SECONDS = 60
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
INFER = b"POST /v2/models/classifier/infer HTTP/1.1\r\nHost: localhost\r\n"
_CODE = {"name": "code", "datatype": "UINT8", "shape": [1, 12], "data": [7] * 12}
BODY = json.dumps({"inputs": [_CODE]}).encode()
WHOLE_INFERENCE = INFER + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@dataclass(frozen=True)
class Answer:
    """A response; `error` is empty if the body is not JSON with a field of this name."""

    status: int
    closes: bool
    error: str


def connect(address: str) -> socket.socket:
    """Open a connection to a server's ``127.0.0.1:PORT``."""
    host, port = address.split(":")
    assert host == "127.0.0.1"
    return socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer.

    Raises:
        OSError, http.client.HTTPException: if the connection was closed without an answer.
    """
    response = http.client.HTTPResponse(connection)
    response.begin()
    text = response.read()
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        error = ""
    return Answer(response.status, response.headers.get("connection", "").lower() == "close", error)


def ask(address: str, *parts: bytes) -> Answer:
    """Send parts on a new connection and read the answer, which may arrive before the last part is sent."""
    with connect(address) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # refused and closed by the server; its answer says why
            pass
        return read_answer(connection)


def is_closed(connection: socket.socket, *, sending: bytes = b"", every: float = 0.1) -> bool:
    """Wait until the server closes a connection, sending some bytes at an interval meanwhile."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    connection.settimeout(every)
    while time.monotonic() < deadline:
        if _ends(connection, sending):
            return True
    return False


def _ends(connection: socket.socket, sending: bytes) -> bool:
    try:
        if sending:
            connection.sendall(sending)
        return not connection.recv(4096)
    except TimeoutError:
        return False
    except OSError:
        return True


def classifier_answers(address: str) -> bool:
    """Return whether an inference on a new connection is answered."""
    return ask(address, WHOLE_INFERENCE).status == 200


def attempt(address: str, *parts: bytes) -> Any:
    """Return the status of the answer, or the name of the exception if there is none."""
    try:
        return ask(address, *parts).status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
