"""HTTP by the byte, on sockets of 127.0.0.1: what client libraries would not send."""

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
    """What came back; `error` is empty where the body is no JSON with one."""

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
        OSError, http.client.HTTPException: the connection was closed without one.
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
    """Send parts on a new connection, and read the answer, which may come before the last of them."""
    with connect(address) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # it was refused, and closed: what is read tells
            pass
        return read_answer(connection)


def is_closed(connection: socket.socket, *, sending: bytes = b"", every: float = 0.1) -> bool:
    """Wait until the server closes a connection, and send some bytes again and again while waiting."""
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
    """Whether one inference on a connection of its own is answered."""
    return ask(address, WHOLE_INFERENCE).status == 200


def attempt(address: str, *parts: bytes) -> Any:
    """Return the status of an answer, or the name of the error where there is none."""
    try:
        return ask(address, *parts).status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
