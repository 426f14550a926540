"""The local server: two engines behind an HTTP and a gRPC port, from start to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from ccr_deploy import __version__
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.errors import ServingError
from ccr_deploy.serving.client_limits import DEFAULT_TIMES, ConnectionLimits, allow_open_files
from ccr_deploy.serving.engine_queue import EngineQueue
from ccr_deploy.serving.grpc_service import Calls, grpc_server
from ccr_deploy.serving.hosts import Hosts
from ccr_deploy.serving.http_connections import Connections
from ccr_deploy.serving.http_service import HttpServer, http_app
from ccr_deploy.serving.kserve_sdk import DataPlane, ModelRepository
from ccr_deploy.serving.models import ClassifierModel, EncoderModel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import grpc

    from ccr_deploy.engines.factory import EngineFactory
    from ccr_deploy.serving.client_limits import Times
    from ccr_deploy.serving.limits import Limits

GRACE_SECONDS = 20
"""How long requests in flight may take after SIGTERM or SIGINT."""
_DRAIN_SECONDS = 5
_POLL_SECONDS = 0.05
_IDLE_POLLS = 3
"""Consecutive checks without a request in progress: a request that has just arrived is not counted yet."""
_BACKLOG = 1024
"""Connections that the kernel queues until they are accepted, so that a burst of clients is not refused."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Listening:
    """Both ports are open: the server is live, but not ready yet."""

    host: str
    http_port: int
    grpc_port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"listening: http://{host}:{self.http_port} and gRPC {host}:{self.grpc_port}"


@dataclass(frozen=True)
class Ready:
    """Both engines are loaded and warmed up."""

    seconds: float

    def __str__(self) -> str:
        return f"ready: engines loaded and warmed up in {self.seconds} s; Ctrl-C stops the server"


@dataclass(frozen=True)
class Stopped:
    """The server stopped, with the numbers of requests answered and cut off since the signal."""

    answered: int
    cut: int

    def __str__(self) -> str:
        return f"stopped: {self.answered} requests answered and {self.cut} cut off since the signal"


Event = Listening | Ready | Stopped
"""The events of a server's life, in this order."""


class _DataPlane(DataPlane):
    """KServe's data plane, which passes requests to models, with a correct readiness."""

    def __init__(self, queues: Sequence[EngineQueue]) -> None:
        super().__init__(ModelRepository())
        self._queues = queues
        self.stopping = False

    def metadata(self) -> dict[str, object]:
        """Return the server's metadata."""
        extensions = ["binary_tensor_data"]
        return {"name": "ccr-deploy", "version": __version__, "extensions": extensions}

    async def ready(self) -> bool:
        """Return whether both engines are warmed up and the server is not stopping."""
        return not self.stopping and all(queue.ready for queue in self._queues)


class LocalServer:
    """The engines of a factory behind an HTTP and a gRPC port. `run` serves until SIGTERM or SIGINT."""

    def __init__(
        self,
        engines: EngineFactory,
        limits: Limits,
        host: str,
        http_port: int,
        grpc_port: int,
        *,
        allowed_hosts: Sequence[str] = (),
        require_verified: bool = False,
        times: Times = DEFAULT_TIMES,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Create a server; `run` opens its ports.

        Args:
            engines: the factory that finds and loads the engines.
            limits: limits on images, requests and memory.
            host: the address to listen on.
            http_port: the HTTP port; 0 for any free port.
            grpc_port: the gRPC port; 0 for any free port.
            allowed_hosts: host headers that are allowed in addition to loopback names.
            require_verified: whether to refuse engines that have not passed `ccr-deploy verify`.
            times: timeouts for clients, in seconds.
            grace_seconds: how long requests in flight may take after the signal.

        Raises:
            WrongUsageError: if an engine is not built.
            EngineError: if a stored engine is damaged, or not verified although this is required.
        """
        bundle = engines.bundle
        self._address = (host, http_port, grpc_port)
        self._times = times
        self._grace_seconds = grace_seconds
        found = {stage: engines.find(stage, require_verified=require_verified) for stage in CHAIN_STAGES}
        self._queues = [
            EngineQueue(stage, partial(engines.load, engine), limits) for stage, engine in found.items()
        ]
        self._dataplane = _DataPlane(self._queues)
        for model, queue in zip((EncoderModel, ClassifierModel), self._queues, strict=True):
            self._dataplane.model_registry.update(model(bundle.manifest, queue, limits))
        app = http_app(self._dataplane, max_body_bytes=limits.body_bytes(bundle))
        self._connection_limits = ConnectionLimits.within(allow_open_files())
        self._http = HttpServer(
            app, Connections(self._connection_limits, times, Hosts.of(host, allowed_hosts))
        )
        self._calls = Calls()
        self._max_message_bytes = limits.message_bytes(bundle)

    async def run(self, report: Callable[[Event], None]) -> None:
        """Serve until SIGTERM or SIGINT, then finish the requests in flight. Call `report` with each event.

        A second signal ends the process at once.

        Raises:
            ServingError: if a port cannot be opened.
            EngineError: if an engine cannot be loaded or run.
        """
        stop = _stop_signal()
        grpc = grpc_server(
            self._dataplane,
            self._calls,
            self._times,
            max_connections=self._connection_limits.grpc,
            max_message_bytes=self._max_message_bytes,
        )
        listener, listening = self._open_ports(grpc)
        await grpc.start()
        http = asyncio.create_task(self._http.serve(sockets=[listener]))
        try:
            report(listening)
            started = time.perf_counter()
            if await _before(stop, self._start_engines()):
                report(Ready(round(time.perf_counter() - started, 2)))
                await stop.wait()
        finally:
            stopped = await self._end(http, grpc)
            await asyncio.gather(*(queue.close() for queue in self._queues))
        report(stopped)

    async def _end(self, http: asyncio.Task[None], grpc: grpc.aio.Server) -> Stopped:
        """Finish the requests in flight within the grace time, and cut off the rest."""
        deadline = time.monotonic() + self._grace_seconds
        before = self._answered
        self._dataplane.stopping = True
        self._http.connections.close_after_answers()
        await self._drain(min(deadline, time.monotonic() + _DRAIN_SECONDS))
        self._http.should_exit = True
        closing = asyncio.gather(http, grpc.stop(self._grace_seconds))
        await asyncio.wait({closing}, timeout=max(deadline - time.monotonic(), 0))
        stopped = Stopped(self._answered - before, cut=self._in_progress)
        if not closing.done():
            await asyncio.gather(self._http.cut(), grpc.stop(None))
        await closing
        return stopped

    @property
    def _in_progress(self) -> int:
        return self._http.connections.busy + self._calls.in_progress

    @property
    def _answered(self) -> int:
        return self._http.answered + self._calls.answered

    def _open_ports(self, grpc: grpc.aio.Server) -> tuple[socket.socket, Listening]:
        host, http_port, grpc_port = self._address
        listener = _listener(host, http_port, "--http-port")
        # Connections inherit it. Without it a response's body waits 40 ms for the ACK of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            # gRPC opens its own socket, but reports a failure's cause on stderr only: try the port first.
            _listener(host, grpc_port, "--grpc-port").close()
            found = grpc.add_insecure_port(f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}")
        except RuntimeError as error:
            raise _closed(host, grpc_port, "--grpc-port", "gRPC cannot bind it") from error
        return listener, Listening(host, listener.getsockname()[1], found)

    async def _drain(self, deadline: float) -> None:
        """Continue to serve until no request is in progress, for a few seconds at most.

        Closing the HTTP server drops requests that have arrived but not started; gRPC cancels them.
        """
        idle = 0
        while idle < _IDLE_POLLS and time.monotonic() < deadline:
            idle = 0 if self._in_progress else idle + 1
            await asyncio.sleep(_POLL_SECONDS)

    async def _start_engines(self) -> None:
        for queue in self._queues:  # one after the other: parallel warm-ups would compete for the processor
            await queue.start()


def serve_until_stopped(server: LocalServer, report: Callable[[Event], None]) -> None:
    """Run a server on uvloop's event loop, which takes less time per request than asyncio's.

    Args:
        server: the server.
        report: called with each event of the server's life.
    """
    uvloop.run(server.run(report))


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal has its default effect."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return stop


async def _before(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Run some work until it is done or an event is set; return whether it is done."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        return False
    stopping.cancel()
    await working
    return True


def _listener(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Python appends the address to the reason: "Address in use (while attempting to bind on address …)".
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise _closed(host, port, option, reason, is_host=isinstance(error, socket.gaierror)) from error


def _closed(host: str, port: int, option: str, reason: str, *, is_host: bool = False) -> ServingError:
    remedy = "check --host" if is_host else f"choose another port with {option}"
    return ServingError(f"{host}:{port}: cannot listen ({reason}): {remedy}")
