"""HTTP connections with limits: uvicorn's own protocol takes heads of any size, and waits for ever.

The head is refused here, before the application hears of it, and by the bytes as they arrive. A connection
beyond the limit is accepted for health and metrics alone: what it is for cannot be known before its head was
read. There are few such places, for a short time, and a new connection pushes the oldest out, so that idle
clients cannot fill them.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ccr_deploy.serving.client_limits import MAX_HEAD_BYTES
from ccr_deploy.serving.measures import REFUSED

if TYPE_CHECKING:
    import asyncio

    from ccr_deploy.serving.client_limits import ConnectionLimits, Times
    from ccr_deploy.serving.hosts import Hosts

HEALTH_PATHS = frozenset({b"/v2/health/live", b"/v2/health/ready", b"/metrics"})
"""What is answered on connections beyond the limit too."""
_PIPELINED = 16


class _RefusedError(Exception):
    """Ends the parser's work on a connection whose request was refused."""


class Connections:
    """All open connections, those within the limit and those beyond."""

    def __init__(self, limits: ConnectionLimits, times: Times, hosts: Hosts) -> None:
        """Start with none.

        Args:
            limits: The most that may ask for anything, and beyond them for `HEALTH_PATHS`.
            times: What clients have.
            hosts: The Host headers that are answered.
        """
        self.times = times
        self.hosts = hosts
        self.closing = False
        """Whether answers say that their connection is closed."""
        self.refused = 0
        """The requests that the application did not hear of."""
        self._limits = limits
        self._open: set[Connection] = set()
        self._beyond: dict[Connection, None] = {}  # in the order of their coming

    @property
    def busy(self) -> int:
        """The connections on which a request arrives or waits for its answer."""
        return sum(connection.busy for connection in (*self._open, *self._beyond))

    def enter(self, connection: Connection) -> bool:
        """Take a new connection; whether it is within the limit."""
        if len(self._open) < self._limits.http:
            self._open.add(connection)
            return True
        if len(self._beyond) >= self._limits.health:
            oldest = next(iter(self._beyond))
            del self._beyond[oldest]
            oldest.transport.abort()
        self._beyond[connection] = None
        return False

    def leave(self, connection: Connection) -> None:
        """Forget a connection that was closed."""
        self._open.discard(connection)
        self._beyond.pop(connection, None)

    def close_after_answers(self) -> None:
        """From here on answers say ``Connection: close``."""
        self.closing = True
        for connection in self._open:
            connection.close_after_answer()

    def cut(self) -> None:
        """Refuse the requests that have not arrived yet; those that wait for an answer are left."""
        for connection in (*self._open, *self._beyond):
            connection.cut()


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within limits of size, number and time."""

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:  # noqa: ANN401
        super().__init__(**of_uvicorn)
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._within_limit = True
        self._refused = False
        self._in_head = False
        self._arriving = False
        self._begun = 0.0
        self._bytes_around_body = 0

    @property
    def busy(self) -> bool:
        """Whether a request arrives or waits for its answer."""
        return self._waits or (self._arriving and not self._refused)

    @property
    def _waits(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time within which a request must begin."""
        super().connection_made(transport)
        self._within_limit = self._all.enter(self)
        may_wait = self._within_limit and not self._all.closing
        self._allow(self._all.times.idle if may_wait else self._all.times.health)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._allow(None)
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless it is more than a head may have."""
        if self._refused:
            return  # until the client has read why
        if not self._arriving:
            self._bytes_around_body = 0
        self._bytes_around_body += len(data)
        super().data_received(data)
        if self._arriving and not self._refused and self._bytes_around_body > MAX_HEAD_BYTES:
            self._refuse_large()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or was refused within the parser, which ends up here too."""
        if not self._refused:
            self._refuse(HTTPStatus.BAD_REQUEST, "malformed", msg)

    def on_message_begin(self) -> None:
        """Start the time within which the head must arrive."""
        super().on_message_begin()
        if len(self.pipeline) >= _PIPELINED:
            self._refuse(HTTPStatus.BAD_REQUEST, "malformed", f"more than {_PIPELINED} requests at once")
            raise _RefusedError
        self._in_head = self._arriving = True
        self._begun = self.loop.time()
        self._allow(self._all.times.head if self._within_limit else self._all.times.health)

    def on_url(self, url: bytes) -> None:
        """Refuse a URL that is too long."""
        super().on_url(url)
        if len(self.url) > MAX_HEAD_BYTES:
            self._refuse_large()
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind a chunked body is dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, if its head is one that is answered here."""
        self._check_head()
        self._in_head = False
        super().on_headers_complete()
        if self._all.closing or not self._within_limit:
            self.close_after_answer()
        self._allow(max(self._begun + self._all.times.request - self.loop.time(), 0))

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on, which the application limits."""
        self._bytes_around_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the time within which the request must arrive."""
        super().on_message_complete()
        self._arriving = False
        self._bytes_around_body = 0
        self._allow(None if self._waits else self._all.times.idle)

    def on_response_complete(self) -> None:
        """Start the time within which the next request must begin."""
        super().on_response_complete()
        if not self._arriving and not self._waits:
            self._allow(self._all.times.idle)

    def pause_writing(self) -> None:
        """Start the time within which the client must take the answer."""
        super().pause_writing()
        self._allow(self._all.times.answer)

    def resume_writing(self) -> None:
        """End the time within which the client must take the answer."""
        super().resume_writing()
        times = self._all.times
        self._allow(times.request if self._arriving else None if self._waits else times.idle)

    def close_after_answer(self) -> None:
        """Let the answer to the last request that arrived say ``Connection: close``."""
        if self._waits:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close an idle connection, and any other after its answer; a head that arrives may go on."""
        if not self.busy and not self._refused:
            self.transport.close()

    def cut(self) -> None:
        """Refuse a request of which the head has not arrived."""
        if self._arriving and not self._waits and not self._refused:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "not ready", "the server ends")

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        hosts = [value.decode("latin-1") for name, value in self.headers if name == b"host"]
        if size > MAX_HEAD_BYTES:
            self._refuse_large()
        elif not all(map(self._all.hosts.answers, hosts)):
            message = f"Host {hosts[0]!r:.80} is not answered: start the server with --allow-host NAME"
            self._refuse(HTTPStatus.FORBIDDEN, "host", message)
        elif not self._within_limit and self.url.split(b"?")[0] not in HEALTH_PATHS:
            message = "as many connections are open as may: try again later"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", message)
        if self._refused:
            raise _RefusedError

    def _refuse_large(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if len(self.url) > MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
        self._refuse(status, "too large", f"a URL or headers beyond {MAX_HEAD_BYTES} bytes are not read")

    def _refuse(self, status: HTTPStatus, reason: str, message: str) -> None:
        """Answer without the application, and close once the client has had the time to read it."""
        self._refused = True
        self._all.refused += 1
        REFUSED.labels("", reason).inc()
        reads_body = self._arriving and not self._in_head and not self.pipeline
        if self._waits and not reads_body:  # requests that came before are answered; this one cannot be
            self.close_after_answer()
            self._allow(None)
            return
        if self._waits:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
        content = json.dumps({"error": message}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(content) + content)
        # To close at once what has unread bytes resets the connection, and takes the answer away again.
        self.transport.write_eof()
        self.flow.resume_reading()
        self._allow(self._all.times.linger)

    def _allow(self, seconds: float | None) -> None:
        """Start the client's time for what comes next; None: the client has nothing to do."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        times = self._all.times
        if self.flow.write_paused or self._refused or not self._arriving:
            self.transport.abort()
        elif self.flow.read_paused or (self._in_head and self._waits):
            self._allow(times.head)  # it is the server that is not done with what came before
        else:
            what = "request line and headers" if self._in_head else "request"
            seconds = times.head if self._in_head else times.request
            message = f"the {what} did not arrive within {seconds} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too slow", message)
