"""The attacks on one running server, each bounded in number; after each the server must infer as before."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import numpy as np
import tritonclient.grpc.service_pb2 as messages

from ccr_deploy.codec.payload import encode_payload
from tests.support.raw_http import (
    BODY,
    INFER,
    LIVE,
    WHOLE_INFERENCE,
    attempt,
    classifier_answers,
    connect,
    is_closed,
    read_answer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.bundle.reader import Bundle
    from tests.support.server_process import ServerProcess

    Attack = Callable[[ServerProcess, Bundle, int], "Tried"]

MALFORMED = 2000
MALFORMED_HTTP = 600
DAMAGED = 1000
SLOW, IDLE = 300, 800
HEALTH_SECONDS = 4
PATHS = (b"/v2/health/live", b"/v2/health/ready", b"/metrics")


@dataclass(frozen=True)
class Tried:
    """One row of the table."""

    what: str
    times: int
    held: bool
    note: str = ""

    def __str__(self) -> str:
        answer = "yes" if self.held else "**no**"
        return f"| {self.what} | {self.times:,} | {answer}{': ' * bool(self.note)}{self.note} |"


def is_well(server: ServerProcess, seconds: float = 30) -> bool:
    """Whether the server infers over HTTP and gRPC, as soon as it has seen that an attack is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if attempt(server.http_address, WHOLE_INFERENCE) == 200 and _grpc_status(server, [_message()]) == {
            "OK": 1
        }:
            return True
        time.sleep(0.1)
    return False


def crowd(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """Slow and idle connections, far beyond the limit of open files."""
    address = server.http_address
    slow = [connect(address) for _ in range(SLOW)]
    for connection in slow:
        connection.sendall(LIVE[:30])
    idle = [connect(address) for _ in range(IDLE)]
    refused = attempt(address, WHOLE_INFERENCE)
    asked = _health(address)
    for connection in (*slow, *idle):
        connection.close()
    held = set(asked) == {200} and refused == 503 and is_well(server)
    what = f"health and metrics under {SLOW} slow and {IDLE} idle connections; inference is 503, then 200"
    return Tried(what, asked.total(), held, _note(asked))


def renewed_crowd(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """As many connections, each opened anew as soon as it is closed."""
    address = server.http_address
    held_open = [connect(address) for _ in range(SLOW + IDLE)]
    asked: Counter[object] = Counter()
    for number in range(2000):
        held_open[number % len(held_open)].close()
        held_open[number % len(held_open)] = connect(address)
        if number % 20 == 0:
            asked[attempt(address, LIVE)] += 1
    for connection in held_open:
        connection.close()
    what = "health while 1,100 connections are closed and opened again, 2,000 times"
    return Tried(what, asked.total(), set(asked) == {200} and is_well(server), _note(asked))


def grpc_crowd(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """Connections to gRPC's port that never send anything."""
    idle = [connect(server.grpc_address) for _ in range(IDLE)]
    asked = _health(server.http_address)
    inferred = classifier_answers(server.http_address)
    for connection in idle:
        connection.close()
    held = set(asked) == {200} and inferred and is_well(server)
    return Tried(
        f"health over HTTP under {IDLE} silent connections to gRPC", asked.total(), held, _note(asked)
    )


def large_heads(server: ServerProcess, _: Bundle, seed: int) -> Tried:
    """URLs and headers of 17 KiB to 16 MiB, whole and without an end."""
    generator = np.random.default_rng(seed)
    statuses: Counter[object] = Counter()
    for number in range(100):
        filler = b"x" * int(2 ** generator.uniform(14.1, 24))
        head = b"GET /" + filler if number % 2 else LIVE[:-2] + b"A: " + filler
        statuses[attempt(server.http_address, head + b"\r\n\r\n" * (number % 4 < 2))] += 1
    held = set(statuses) <= {414, 431, "ConnectionResetError", "BrokenPipeError"} and is_well(server)
    return Tried("URLs and headers of 17 KiB to 16 MiB: 414 or 431", 100, held, _note(statuses))


def slow_requests(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """Heads, bodies and blank lines that trickle in."""
    starts = {
        b"": b"\r\n",
        LIVE[:-2]: b"a: b\r\n",
        INFER + b"Content-Length: 99999\r\n\r\n": b" ",
        INFER + b"Transfer-Encoding: chunked\r\n\r\n": b"1\r\n \r\n",
    }
    closed = 0
    for start, drop in list(starts.items()) * 3:
        with connect(server.http_address) as connection:
            connection.sendall(start)
            closed += is_closed(connection, sending=drop)
    return Tried(
        "requests that arrive byte by byte, each byte in time: closed", 12, closed == 12 and is_well(server)
    )


def wrong_http(server: ServerProcess, _: Bundle, seed: int) -> Tried:
    """Whole inferences with bytes changed, cut out and doubled, and plain noise."""
    generator = np.random.default_rng(seed)
    statuses: Counter[object] = Counter()
    for number in range(MALFORMED_HTTP):
        sent = bytearray(WHOLE_INFERENCE if number % 10 else generator.bytes(300))
        for place in generator.integers(0, len(sent), int(generator.integers(1, 6))):
            sent[place] = int(generator.integers(256))
        statuses[_status_of_first_answer(server, bytes(sent))] += 1
    held = not any(isinstance(status, int) and status >= 500 for status in statuses) and is_well(server)
    return Tried("mutated HTTP requests and noise: no 5xx", MALFORMED_HTTP, held, _note(statuses))


def wrong_protobufs(server: ServerProcess, _: Bundle, seed: int) -> Tried:
    """ModelInfer's message, mutated or cut."""
    generator = np.random.default_rng(seed)
    whole = _message()
    sent = []
    for _ in range(MALFORMED):
        message = bytearray(whole[: int(generator.integers(1, len(whole) + 1))])
        for place in generator.integers(0, len(message), int(generator.integers(0, 4))):
            message[place] = int(generator.integers(256))
        sent.append(bytes(message))
    statuses = _grpc_status(server, sent)
    held = set(statuses) <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} and is_well(server)
    return Tried("mutated protobufs: INVALID_ARGUMENT", MALFORMED, held, _note(statuses))


def damaged_payloads(server: ServerProcess, bundle: Bundle, seed: int) -> Tried:
    """A payload with bits flipped, cut or longer, over gRPC."""
    generator = np.random.default_rng(seed)
    contract = bundle.manifest.contract
    payload = encode_payload(np.zeros(contract.code_bytes, np.uint8), contract)
    sent = []
    for number in range(DAMAGED):
        damaged = bytearray(payload)
        if number % 3 == 0:
            damaged = damaged[: int(generator.integers(len(payload)))]
        elif number % 3 == 1:
            damaged += generator.bytes(int(generator.integers(1, 50)))
        else:
            damaged[int(generator.integers(len(payload)))] ^= 1 << int(generator.integers(8))
        sent.append(_message(bytes(damaged)))
    statuses = _grpc_status(server, sent)
    held = statuses == {"INVALID_ARGUMENT": DAMAGED} and is_well(server)
    return Tried("damaged payloads: INVALID_ARGUMENT", DAMAGED, held, _note(statuses))


def other_hosts(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """Requests that a browser sends for a page with a rebound host name."""
    names = [b"evil.example", b"evil.example:8080", b"localhost.evil.example", b"10.0.0.1", b"[fe80::1]"]
    requests = [
        LIVE.replace(b"Host: localhost", b"Host: " + name).replace(b"/v2/health/live", path)
        for name in names
        for path in (*PATHS, b"/v2/models")
    ]
    statuses = Counter(attempt(server.http_address, request) for request in requests)
    return Tried(
        "Host headers of other names: 403", len(requests), set(statuses) == {403} and is_well(server)
    )


def hang_ups(server: ServerProcess, _: Bundle, __: int) -> Tried:
    """Clients that disconnect within a body, or before they read the response."""
    for number in range(500):
        with connect(server.http_address) as connection:
            connection.sendall(
                WHOLE_INFERENCE if number % 2 else INFER + b"Content-Length: 99\r\n\r\n" + BODY[:9]
            )
    return Tried("clients that disconnect during a request or before its response", 500, is_well(server))


ATTACKS: tuple[Attack, ...] = (
    crowd,
    renewed_crowd,
    grpc_crowd,
    large_heads,
    slow_requests,
    wrong_http,
    wrong_protobufs,
    damaged_payloads,
    other_hosts,
    hang_ups,
)


def _health(address: str) -> Counter[object]:
    """The responses to health and metrics requests during some seconds."""
    asked: Counter[object] = Counter()
    deadline = time.monotonic() + HEALTH_SECONDS
    while time.monotonic() < deadline:
        for path in PATHS:
            asked[attempt(address, LIVE.replace(b"/v2/health/live", path))] += 1
        time.sleep(0.02)
    return asked


def _status_of_first_answer(server: ServerProcess, sent: bytes) -> object:
    """Of bytes that may be no whole request: the client ends its side rather than waits."""
    with connect(server.http_address) as connection:
        try:
            connection.sendall(sent)
            connection.settimeout(0.5)
            return read_answer(connection).status
        except TimeoutError:
            return "waits for more"
        except Exception as error:  # whatever a broken answer is to the client's library
            return type(error).__name__


def _message(payload: bytes | None = None) -> bytes:
    """An inference as gRPC sends it: of a payload, or a code."""
    name, datatype, shape = ("code", "UINT8", [1, 12]) if payload is None else ("payload", "BYTES", [1])
    content = bytes(12) if payload is None else len(payload).to_bytes(4, "little") + payload
    tensor = messages.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    request = messages.ModelInferRequest(
        model_name="classifier", inputs=[tensor], raw_input_contents=[content]
    )
    serialized: bytes = request.SerializeToString()
    return serialized


def _grpc_status(server: ServerProcess, sent: list[bytes]) -> Counter[object]:
    statuses: Counter[object] = Counter()
    with grpc.insecure_channel(server.grpc_address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        statuses.update(_code(infer, message) for message in sent)
    return statuses


def _code(infer: grpc.UnaryUnaryMultiCallable, message: bytes) -> str:
    try:
        infer(message, timeout=30)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _note(counts: Counter[object]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.most_common())
