"""The latency that a server adds to its engine, at a low rate: one request at a time, with gaps.

A request and a run of the bare engine follow the same gap, since a processor is slower after idling. The gap
is at least four times the engine's time, so that requests come at a fifth of the engine's rate at most.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from benchmarks.peers.process import PeerProcess
from benchmarks.peers.results import Engines, PeerCandidate
from ccr_deploy.benchmarking.statistics import median_difference_interval
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from ccr_deploy.core.stages import Stage
    from ccr_deploy.engines.factory import EngineFactory

    Samples = npt.NDArray[np.float64]
    """Milliseconds ``[rounds, requests]``."""

PROTOCOLS = {"HTTP": "http", "gRPC": "grpc"}
"""Names of the ways of sending requests, and their protocols."""
REQUESTS = 5
"""Requests of each way in a round."""
_SHORTEST_GAP_SECONDS = 0.02
_IDLE_SHARE = 4
"""The shortest gap in units of the engine's time."""
_WARM_UP_REQUESTS = 10


class AddedLatency(Record, frozen=True):
    """What one way of sending requests adds to the engine, from the client's view.

    The interval bounds the difference of medians (95 %, rounds resampled).
    """

    model: str
    way: str
    requests: int
    gap_ms: float
    engine_p50_ms: float
    engine_p99_ms: float
    request_p50_ms: float
    request_p99_ms: float
    added_p50_ms: float
    added_p50_interval: Interval
    added_p99_ms: float


@dataclass(frozen=True)
class LowRate:
    """Samples of the bare engine and of every way, from the same rounds."""

    model: str
    gap_seconds: float
    engine: Samples
    ways: Mapping[str, Samples]

    def added(self) -> tuple[AddedLatency, ...]:
        """Return what each way adds."""
        return tuple(self._added(way, samples) for way, samples in self.ways.items())

    def _added(self, way: str, samples: Samples) -> AddedLatency:
        engine_p50, engine_p99 = np.percentile(self.engine, (50, 99))
        request_p50, request_p99 = np.percentile(samples, (50, 99))
        return AddedLatency(
            model=self.model,
            way=way,
            requests=samples.size,
            gap_ms=round(1000 * self.gap_seconds, 1),
            engine_p50_ms=round(engine_p50, 3),
            engine_p99_ms=round(engine_p99, 3),
            request_p50_ms=round(request_p50, 3),
            request_p99_ms=round(request_p99, 3),
            added_p50_ms=round(request_p50 - engine_p50, 3),
            added_p50_interval=median_difference_interval(samples, self.engine),
            added_p99_ms=round(request_p99 - engine_p99, 3),
        )


def measure_stage(
    model: str,
    stage: Stage,
    factory: EngineFactory,
    server: Mapping[str, str],
    *,
    rounds: int,
    more: Mapping[str, Callable[[], object]] = MappingProxyType({}),
) -> LowRate:
    """Measure a stage at a low rate, one image per request. The bare engine has a process of its own.

    Args:
        model: name of the model in the results.
        stage: the stage that the engine runs; the server's model has the same name.
        factory: builds the engine of the stage, or finds it.
        server: the server's addresses by protocol.
        rounds: number of rounds.
        more: further calls that are measured in each round, by name.
    """
    ((name, item_shape),) = factory.bundle.manifest.input_shapes(stage).items()
    values = np.random.default_rng(0).integers(0, 256, (1, *item_shape), dtype=np.uint8)
    output = "code" if stage == "encoder" else "logits"
    ways = {
        way: requester(protocol, server[protocol], stage, (name, values), output)
        for way, protocol in PROTOCOLS.items()
    }
    precision = factory.precision(stage)
    program = Engines(factory.target.options, ((factory.build(stage)[0].path, precision),))
    with TemporaryDirectory() as folder:
        np.save(Path(folder) / "input.npy", values)
        candidate = PeerCandidate("bare engine", "ours", precision, None, program)
        with PeerProcess(candidate, Path(folder) / "input.npy") as process:
            process.start_first_run(1, Path(folder) / "output.npy")
            process.finish()
            return measure_low_rate(model, lambda: process.round(1, 1)[0], {**ways, **more}, rounds)


def measure_low_rate(
    model: str, engine: Callable[[], float], ways: Mapping[str, Callable[[], object]], rounds: int
) -> LowRate:
    """Measure an engine and the ways of requesting it, interleaved in rounds of `REQUESTS`.

    Args:
        model: name of the model, for the results.
        engine: runs the bare engine once, and returns its milliseconds.
        ways: a function by name of the way; it sends a request and waits for the response.
        rounds: number of rounds.
    """
    calls: dict[str, Callable[[], float]] = {"": engine}
    calls |= {way: partial(_milliseconds, request) for way, request in ways.items()}
    for call in calls.values():
        for _ in range(_WARM_UP_REQUESTS):
            call()
    gap = max(_SHORTEST_GAP_SECONDS, _IDLE_SHARE * min(engine() for _ in range(3)) / 1000)
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    with TerminalProgress().task(f"{model} at a low rate", rounds) as advance:
        for number in range(rounds):
            for name in _rotated(list(calls), number):
                found[name].append([_after_gap(calls[name], gap) for _ in range(REQUESTS)])
            advance(1)
    samples = {name: np.array(values) for name, values in found.items()}
    return LowRate(model, gap, samples.pop(""), samples)


def requester(
    protocol: str, address: str, model: str, tensor: tuple[str, Any], output: str
) -> Callable[[], Any]:
    """Return a function that sends one request with binary tensors by tritonclient.

    Args:
        protocol: ``http`` or ``grpc``.
        address: the server's address, host and port.
        model: name of the model.
        tensor: name and values of the input.
        output: the output that is requested.
    """
    library: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    name, values = tensor
    sent = library.InferInput(name, list(values.shape), "UINT8")
    sent.set_data_from_numpy(values)
    wanted = [library.InferRequestedOutput(output)]
    client = library.InferenceServerClient(address)
    return lambda: client.infer(model, [sent], outputs=wanted)


def added_latency_table(title: str, entries: Sequence[AddedLatency], note: str, warning: str) -> Table:
    """Return the table, one row for each way.

    Args:
        title: the title.
        entries: the rows.
        note: what was measured, and on which machine.
        warning: why the run is unreliable, "" if it is reliable.
    """
    columns = ("model", "requests", "engine p50", "added p50", "95 % interval", "engine p99", "added p99")
    rows = tuple(
        (
            entry.model,
            entry.way,
            f"{entry.engine_p50_ms:.2f} ms",
            f"{entry.added_p50_ms:.2f} ms",
            f"{entry.added_p50_interval.low:.2f} – {entry.added_p50_interval.high:.2f}",
            f"{entry.engine_p99_ms:.2f} ms",
            f"{entry.added_p99_ms:.2f} ms",
        )
        for entry in entries
    )
    return Table(title=title, columns=columns, rows=rows, note=note, warning=warning)


def _rotated(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _after_gap(call: Callable[[], float], gap_seconds: float) -> float:
    time.sleep(gap_seconds)
    return call()


def _milliseconds(request: Callable[[], object]) -> float:
    started = time.perf_counter()
    request()
    return 1000 * (time.perf_counter() - started)
