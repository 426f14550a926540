"""The local server: two engines behind two ports, from their start to their end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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
"""From the signal on, how long requests in flight may take."""
_DRAIN_SECONDS = 5
_LOOK_SECONDS = 0.05
_IDLE_LOOKS = 3
_BACKLOG = 1024
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Listening:
    """Both ports are open: the server is alive, though not ready."""

    host: str
    http_port: int
    grpc_port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"listening: http://{host}:{self.http_port} and gRPC {host}:{self.grpc_port}"


@dataclass(frozen=True)
class Ready:
    """Both engines were loaded and warmed up."""

    seconds: float

    def __str__(self) -> str:
        return f"ready: engines loaded and warmed up in {self.seconds} s; Ctrl-C ends the server"


@dataclass(frozen=True)
class Stopped:
    """The server ended: how many requests it answered since the signal, and how many it cut."""

    answered: int
    cut: int

    def __str__(self) -> str:
        return f"stopped: since the signal, {self.answered} requests were answered and {self.cut} cut"


Event = Listening | Ready | Stopped
"""What a server tells whoever started it."""


class _DataPlane(DataPlane):
    """KServe's way from a request to a model, with a readiness that is true."""

    def __init__(self, queues: Sequence[EngineQueue]) -> None:
        super().__init__(ModelRepository())
        self._queues = queues
        self.stopping = False

    def metadata(self) -> dict[str, object]:
        """What the server is."""
        extensions = ["binary_tensor_data"]
        return {"name": "ccr-deploy", "version": __version__, "extensions": extensions}

    async def ready(self) -> bool:
        """Whether both engines were warmed up, and the server is not about to end."""
        return not self.stopping and all(queue.ready for queue in self._queues)


class LocalServer:
    """The engines of a factory behind an HTTP and a gRPC port. `run` serves until a signal."""

    def __init__(
        self,
        engines: EngineFactory,
        limits: Limits,
        host: str,
        http_port: int,
        grpc_port: int,
        *,
        allowed_hosts: Sequence[str] = (),
        times: Times = DEFAULT_TIMES,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """A server on a host's two ports.

        Args:
            engines: What runs.
            limits: How much is taken on.
            host: The address to listen on.
            http_port: HTTP's; 0: any that is free.
            grpc_port: gRPC's; 0: any that is free.
            allowed_hosts: Host headers that are answered beside loopback's.
            times: How long clients may take.
            grace_seconds: How long requests in flight may take after the signal.

        Raises:
            WrongUsageError: an engine was not built yet.
            EngineError: a stored engine is damaged.
        """
        bundle = engines.bundle
        self._address = (host, http_port, grpc_port)
        self._times = times
        self._grace_seconds = grace_seconds
        self._queues = [
            EngineQueue(stage, partial(engines.load, engines.find(stage)), limits) for stage in CHAIN_STAGES
        ]
        self._dataplane = _DataPlane(self._queues)
        for model, queue in zip((EncoderModel, ClassifierModel), self._queues, strict=True):
            self._dataplane.model_registry.update(model(bundle.manifest, queue, limits))
        app = http_app(self._dataplane, max_body_bytes=limits.body_bytes(bundle))
        self._most = ConnectionLimits.within(allow_open_files())
        self._http = HttpServer(app, Connections(self._most, times, Hosts.of(host, allowed_hosts)))
        self._calls = Calls()
        self._max_message_bytes = limits.message_bytes(bundle)

    async def run(self, tell: Callable[[Event], None]) -> None:
        """Serves until SIGTERM or SIGINT, then answers what is in flight; `tell` hears how it goes.

        A second signal ends the process at once.

        Raises:
            ServingError: a port cannot be opened.
            EngineError: an engine cannot be loaded or run.
        """
        stop = _stop_signal()
        grpc = grpc_server(
            self._dataplane,
            self._calls,
            self._times,
            max_connections=self._most.grpc,
            max_message_bytes=self._max_message_bytes,
        )
        listener, listening = self._open_ports(grpc)
        await grpc.start()
        http = asyncio.create_task(self._http.serve(sockets=[listener]))
        try:
            tell(listening)
            started = time.perf_counter()
            if await _before(stop, self._start_engines()):
                tell(Ready(round(time.perf_counter() - started, 2)))
                await stop.wait()
        finally:
            stopped = await self._end(http, grpc)
            await asyncio.gather(*(queue.close() for queue in self._queues))
        tell(stopped)

    async def _end(self, http: asyncio.Task[None], grpc: grpc.aio.Server) -> Stopped:
        """Answer what is in flight within the grace time, and cut the rest."""
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
        # Connections inherit it. Without it an answer's body waits for its headers' acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            # gRPC opens its own, but tells on stderr rather than in its error what is wrong with a port.
            _listener(host, grpc_port, "--grpc-port").close()
            found = grpc.add_insecure_port(f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}")
        except RuntimeError as error:
            raise _closed(host, grpc_port, "--grpc-port", "gRPC cannot bind it") from error
        return listener, Listening(host, listener.getsockname()[1], found)

    async def _drain(self, deadline: float) -> None:
        """Goes on serving until there is nothing to do, for a few seconds at most.

        Closing an HTTP server drops requests that have arrived but were not begun, and gRPC's cancels them.
        """
        idle = 0
        while idle < _IDLE_LOOKS and time.monotonic() < deadline:
            idle = 0 if self._in_progress else idle + 1
            await asyncio.sleep(_LOOK_SECONDS)

    async def _start_engines(self) -> None:
        for queue in self._queues:  # in turn: each would disturb the other's warm-up
            await queue.start()


def _stop_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second one does what it does without us."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def heard() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, heard)
    return stop


async def _before(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Whether the work was done before the event; it is left alone otherwise."""
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
        raise _closed(host, port, option, error.strerror or str(error)) from error


def _closed(host: str, port: int, option: str, reason: str) -> ServingError:
    return ServingError(f"{host}:{port}: cannot listen there ({reason}): choose another with {option}")
