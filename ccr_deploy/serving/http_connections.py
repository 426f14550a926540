"""HTTP connections with limits: uvicorn's own protocol has no limit on the head's size and no timeouts.

A head that is too large is rejected here, as its bytes arrive, before the application is called. A
connection beyond the limit is still accepted, for health and metrics only, because its purpose is not known
before its head is read. There are few such slots, each for a short time, and a new connection evicts the
oldest one, so that idle clients cannot occupy them.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ccr_deploy.serving.client_limits import MAX_HEAD_BYTES
from ccr_deploy.serving.metrics import REFUSED

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from ccr_deploy.serving.client_limits import ConnectionLimits, Times
    from ccr_deploy.serving.hosts import Hosts

HEALTH_PATHS = frozenset({b"/v2/health/live", b"/v2/health/ready", b"/metrics"})
"""The paths that connections beyond the limit may request."""
_MAX_PIPELINED = 16
"""Limit for the requests that a connection sends ahead: their heads and bodies are kept in memory."""


class _RefusedError(Exception):
    """Stops the parser after a request was rejected."""


class Connections:
    """All open connections, within the limit and beyond it."""

    def __init__(self, limits: ConnectionLimits, times: Times, hosts: Hosts) -> None:
        """Create an empty set of connections.

        Args:
            limits: the most connections for any request, and beyond those for `HEALTH_PATHS` only.
            times: timeouts for clients, in seconds.
            hosts: the allowed Host headers.
        """
        self.times = times
        self.hosts = hosts
        self.closing = False
        """Whether responses have the header ``Connection: close``."""
        self.refused = 0
        """The number of requests that were rejected before they reached the application."""
        self._limits = limits
        self._open: set[Connection] = set()
        self._beyond: dict[Connection, None] = {}  # in order of arrival

    @property
    def busy(self) -> int:
        """The number of connections with a request that is arriving or being processed."""
        return sum(connection.busy for connection in (*self._open, *self._beyond))

    def enter(self, connection: Connection) -> bool:
        """Add a new connection; return whether it is within the limit."""
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
        """Remove a closed connection."""
        self._open.discard(connection)
        self._beyond.pop(connection, None)

    def close_after_answers(self) -> None:
        """Send ``Connection: close`` with this and all further responses."""
        self.closing = True
        for connection in self._open:
            connection.close_after_answer()

    def cut(self) -> None:
        """Reject the requests that have not arrived completely; those being processed go on."""
        for connection in (*self._open, *self._beyond):
            connection.cut()


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within limits of size, number and time."""

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:  # noqa: ANN401
        super().__init__(**of_uvicorn)
        self._all = connections
        self._timer: asyncio.TimerHandle | None = None
        self._processed: RequestResponseCycle | None = None
        self._within_limit = True
        self._refused = False
        self._in_head = False
        self._arriving = False
        self._begun = 0.0
        self._bytes_around_body = 0

    @property
    def busy(self) -> bool:
        """Whether a request is arriving or being processed."""
        return self._waits or (self._arriving and not self._refused)

    @property
    def _waits(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the first request to begin."""
        super().connection_made(transport)
        self._within_limit = self._all.enter(self)
        may_wait = self._within_limit and not self._all.closing
        self._set_timeout(self._all.times.idle if may_wait else self._all.times.health)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self._set_timeout(None)
        self._all.leave(self)
        if self._processed:  # uvicorn tells only the last request, which may be a pipelined one after it
            self._processed.disconnected = True
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        """Start a request in the application, and keep it: `self.cycle` is the last one that arrived."""
        self._processed = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, and reject the request if its head is too large."""
        if self._refused:
            return  # the client is given time to read the error response
        if not self._arriving:
            self._bytes_around_body = 0
        self._bytes_around_body += len(data)
        super().data_received(data)
        if self._arriving and not self._refused and self._bytes_around_body > MAX_HEAD_BYTES:
            self._refuse_large()

    def send_400_response(self, msg: str) -> None:
        """Reject bytes that are not HTTP; the parser also calls this after `_RefusedError`."""
        if not self._refused:
            self._refuse(HTTPStatus.BAD_REQUEST, "malformed", msg)

    def on_message_begin(self) -> None:
        """Start the timeout for the head."""
        super().on_message_begin()
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refuse(
                HTTPStatus.BAD_REQUEST, "malformed", f"more than {_MAX_PIPELINED} pipelined requests"
            )
            raise _RefusedError
        self._in_head = self._arriving = True
        self._begun = self.loop.time()
        self._set_timeout(self._all.times.head if self._within_limit else self._all.times.health)

    def on_url(self, url: bytes) -> None:
        """Reject a URL that is too long."""
        super().on_url(url)
        if len(self.url) > MAX_HEAD_BYTES:
            self._refuse_large()
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers after a chunked body are dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, then start the request in the application."""
        self._check_head()
        self._in_head = False
        super().on_headers_complete()
        if self._all.closing or not self._within_limit:
            self.close_after_answer()
        self._set_timeout(max(self._begun + self._all.times.request - self.loop.time(), 0))

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; the application limits the body's size."""
        self._bytes_around_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the timeout for the request."""
        super().on_message_complete()
        self._arriving = False
        self._bytes_around_body = 0
        self._set_timeout(None if self._waits else self._all.times.idle)

    def on_response_complete(self) -> None:
        """Start the timeout for the next request to begin."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's own timeout is a fixed one, of 5 s
        if not self._arriving and not self._waits:
            self._set_timeout(self._all.times.idle)

    def pause_writing(self) -> None:
        """Start the timeout for the client to read the response."""
        super().pause_writing()
        self._set_timeout(self._all.times.answer)

    def resume_writing(self) -> None:
        """End the timeout for the client to read the response."""
        super().resume_writing()
        times = self._all.times
        self._set_timeout(times.request if self._arriving else None if self._waits else times.idle)

    def close_after_answer(self) -> None:
        """Send ``Connection: close`` with the response to the last request."""
        if self._waits:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection if it is idle; otherwise its request may still complete."""
        if not self.busy and not self._refused:
            self.transport.close()

    def cut(self) -> None:
        """Reject a request whose head has not arrived completely."""
        if self._arriving and not self._waits and not self._refused:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "not ready", "the server is stopping")

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        hosts = [value.decode("latin-1") for name, value in self.headers if name == b"host"]
        if size > MAX_HEAD_BYTES:
            self._refuse_large()
        elif not all(map(self._all.hosts.allows, hosts)):
            message = f"Host {hosts[0]!r:.80} is not allowed: start the server with --allow-host NAME"
            self._refuse(HTTPStatus.FORBIDDEN, "host", message)
        elif not self._within_limit and self.url.split(b"?")[0] not in HEALTH_PATHS:
            message = "too many open connections: try again later"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", message)
        if self._refused:
            raise _RefusedError

    def _refuse_large(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if len(self.url) > MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
        self._refuse(status, "too large", f"the URL or the headers are larger than {MAX_HEAD_BYTES} bytes")

    def _refuse(self, status: HTTPStatus, reason: str, message: str) -> None:
        """Send an error response without the application, and close after the client has had time to read it.

        Args:
            status: the HTTP status.
            reason: the reason that the metric `ccr_deploy_refused` counts.
            message: the error, for the response.
        """
        self._refused = True
        self._all.refused += 1
        REFUSED.labels("", reason).inc()
        reads_body = self._arriving and not self._in_head and not self.pipeline
        # Pipelined requests before this one still get their responses; this one cannot get one in order.
        if self._waits and not reads_body:
            self.close_after_answer()
            self._set_timeout(None)
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
        # Closing a socket with unread bytes resets the connection, and the client would lose the response.
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timeout(self._all.times.linger)

    def _set_timeout(self, seconds: float | None) -> None:
        """Replace the timeout for the client's next step; None: no step of the client is due."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        times = self._all.times
        if self.flow.write_paused or self._refused or not self._arriving:
            self.transport.abort()
        elif self.flow.read_paused or (self._in_head and self._waits):
            self._set_timeout(
                times.head
            )  # the server, not the client, is late: it still processes the request before
        else:
            what = "request line and headers" if self._in_head else "request"
            seconds = times.head if self._in_head else times.request
            message = f"the {what} did not arrive within {seconds} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too slow", message)
