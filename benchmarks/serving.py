"""Measure the local server relative to its engines: ``ccr-layer1``, 224x224, T=8, on a CPU.

``python -m benchmarks.serving`` exports untrained weights (speed does not depend on them), calibrates them on
a few crops, builds INT8 engines with OpenVINO and measures, interleaved, the images per second of the bare
engine and of clients that keep the local server busy. Then it measures the latency that the server adds at a
low rate, also for the demo's classifier, whose engine takes less than 1 ms, and the latency of two servers
without an engine: KServe's own with an empty model, and the frameworks alone. It takes about four minutes on
two idle cores, one of them for the engines, and writes ``benchmarks/results/serving-ccr-layer1.json``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
import tritonclient.grpc
import tritonclient.http

from benchmarks.added_latency import (
    PROTOCOLS,
    AddedLatency,
    LowRate,
    measure_stage,
    requester,
)
from benchmarks.hosts.processes import PATIENCE_SECONDS, free_ports, started
from benchmarks.scaffold import (
    calibrated_bundle,
    interleaved,
    preset_option,
    publish,
    rounds_option,
    temporary_folder,
    untrained_model,
    watched,
)
from benchmarks.serving_results import (
    CHEAP_MODEL,
    EmptyKind,
    EmptyServer,
    ServedRate,
    ServingBenchmark,
    Way,
    serving_floor_table,
    serving_latency_table,
    serving_table,
)
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import ChainStage, Stage

    Images = npt.NDArray[np.uint8]
    Measurement = Callable[[], float]
    """Measures for some seconds and returns images per second."""

TARGET = "cpu-openvino"
BATCHES = (1, 8)
EMPTY_MODEL = "classifier"
EMPTY_SERVERS: dict[EmptyKind, str] = {
    "kserve": "benchmarks.hosts.empty_kserve",
    "bare": "benchmarks.hosts.bare_server",
}
"""The modules of the servers that compute nothing."""


@click.command()
@preset_option
@rounds_option(3, "Rounds of the throughput; each round measures the engine and every way once.")
@click.option(
    "--round-seconds", default=1.0, show_default=True, help="Seconds of each measurement in a round."
)
@click.option(
    "--latency-rounds", default=16, show_default=True, help="Rounds of the latency, of 5 requests each."
)
def main(name: str, rounds: int, round_seconds: float, latency_rounds: int) -> None:
    """Build, serve, measure, and write the result beside this script."""
    with temporary_folder() as folder, ExitStack() as stack:
        factory = _engines(folder, name)
        contention = [watch_start()]
        machine = machine_state(start=contention[0])
        servers = {batch: stack.enter_context(_server(factory, batch)) for batch in BATCHES}
        rates: list[ServedRate] = []
        latencies: list[AddedLatency] = []
        for stage, inputs in _inputs(factory.bundle).items():
            with factory.load(factory.find(stage)) as runner, watched(stage, contention):
                for batch in BATCHES:
                    course = _Course(stage, inputs[:batch], servers[batch], round_seconds)
                    rates += _rates(course, runner, rounds)
                found = measure_stage(f"{stage}, {name}", stage, factory, servers[1], rounds=latency_rounds)
                latencies += found.added()
        with watched("classifier", contention):
            cheap, empty = _cheap_and_empty(folder / "cheap", latency_rounds)
        result = ServingBenchmark(
            schema_version=4,
            model=untrained_model(name, factory.bundle),
            target=TARGET,
            precision="int8",
            rounds=rounds,
            round_seconds=round_seconds,
            machine=machine,
            rates=tuple(rates),
            latencies=(*latencies, *cheap.added()),
            empty_server=empty,
            unreliable_reasons=unreliable_reasons(machine.usable_cores, contention),
        )
    tables = (serving_table(result), serving_latency_table(result), serving_floor_table(result))
    publish(f"serving-{name}", result, *tables)


def _cheap_and_empty(root: Path, rounds: int) -> tuple[LowRate, tuple[EmptyServer, ...]]:
    """Measure the demo's classifier, and in the same rounds the servers that compute nothing."""
    root.mkdir()
    factory = _engines(root, "demo")
    with ExitStack() as stack:
        server = stack.enter_context(_server(factory, 1))
        empty = {kind: stack.enter_context(_empty_server(kind)) for kind in EMPTY_SERVERS}
        code = np.zeros((1, 16), np.uint8)
        more = {
            f"{way}, {kind}": requester(protocol, addresses[protocol], EMPTY_MODEL, ("code", code), "logits")
            for kind, addresses in empty.items()
            for way, protocol in PROTOCOLS.items()
        }
        found = measure_stage(CHEAP_MODEL, "classifier", factory, server, rounds=rounds, more=more)
    own = replace(found, ways={way: found.ways[way] for way in PROTOCOLS})
    return own, tuple(
        EmptyServer(server=kind, way=way, p50_ms=_rounded(values, 50), p99_ms=_rounded(values, 99))
        for kind in EMPTY_SERVERS
        for way in PROTOCOLS
        for values in [found.ways[f"{way}, {kind}"]]
    )


def _rounded(values: npt.NDArray[np.float64], percentile: float) -> float:
    return round(float(np.percentile(values, percentile)), 3)


@contextlib.contextmanager
def _empty_server(kind: EmptyKind) -> Iterator[dict[str, str]]:
    """Start a server that computes nothing; yield its addresses by protocol."""
    http, grpc = free_ports(2)
    command = [sys.executable, "-m", EMPTY_SERVERS[kind], http, grpc]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        addresses = {"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}"}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _is_ready(addresses["http"]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException(f"{EMPTY_SERVERS[kind]} exited or was not ready in time")
            time.sleep(0.1)
        yield addresses


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _engines(root: Path, name: str) -> EngineFactory:
    """Build INT8 engines of both stages, and record them as those that the server loads."""
    bundle = calibrated_bundle(name, root)
    (root / "engines").mkdir()
    store = EngineStore(root / "engines")
    precisions = stage_precisions("int8")
    factory = EngineFactory(bundle, TARGET, store, precisions)
    for stage in precisions:
        factory.build(stage)
    store.choose(factory.bundle, TARGET, {stage: factory.resolved(stage) for stage in precisions})
    return factory


def _inputs(bundle: Bundle) -> dict[ChainStage, Images]:
    """Return random inputs for each stage, of the largest batch."""
    generator = np.random.default_rng(0)
    stages: tuple[ChainStage, ...] = ("encoder", "classifier")
    return {
        stage: generator.integers(0, 256, (max(BATCHES), *shape), dtype=np.uint8)
        for stage in stages
        for shape in bundle.manifest.input_shapes(stage).values()
    }


@contextlib.contextmanager
def _server(factory: EngineFactory, batch: int) -> Iterator[dict[str, str]]:
    """Start a server for one batch size; yield its addresses by protocol."""
    command = [sys.executable, "-m", "ccr_deploy", "serve", str(factory.bundle.path), "--target", TARGET]
    options = ["--engines", str(factory.store.path), "--json", "--http-port", "0", "--grpc-port", "0"]
    with started([*command, *options, "--max-batch", batch], stdout=subprocess.PIPE) as process:
        assert process.stdout
        listening = json.loads(process.stdout.readline())
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield {name: f"127.0.0.1:{listening[f'{name}_port']}" for name in ("http", "grpc")}


@dataclass(frozen=True)
class _Course:
    """A measurement: one stage at the batch size of `inputs`, in rounds of some seconds."""

    stage: Stage
    inputs: Images
    server: dict[str, str]
    seconds: float


def _rates(course: _Course, runner: Runner, rounds: int) -> list[ServedRate]:
    """Measure the bare engine and every way of sending requests, interleaved."""
    batch = len(course.inputs)
    measurements: dict[Way | Literal["engine"], Measurement] = {
        "engine": lambda: _bare(runner, course.inputs, course.seconds),
        "HTTP": lambda: _served(course, "http", clients=3, images=batch),
        "gRPC": lambda: _served(course, "grpc", clients=3, images=batch),
    }
    if batch > 1:
        measurements["gRPC, one image per request"] = lambda: _served(
            course, "grpc", clients=2 * batch, images=1
        )
    _bare(runner, course.inputs, 0)  # warm-up: the first run of a batch size is slower
    found = interleaved(f"{course.stage}, batch {batch}", measurements, rounds)
    alone = found["engine"]
    return [_rate(course.stage, batch, way, alone, rates) for way, rates in found.items() if way != "engine"]


def _rate(stage: str, batch: int, way: Way, alone: list[float], served: list[float]) -> ServedRate:
    shares = [100 * rate / bare for bare, rate in zip(alone, served, strict=True)]
    return ServedRate(
        stage=stage,
        batch=batch,
        way=way,
        engine_images_per_second=round(median(alone), 2),
        served_images_per_second=round(median(served), 2),
        share_percent=round(median(shares), 1),
        lowest_share_percent=round(min(shares), 1),
        highest_share_percent=round(max(shares), 1),
    )


def _bare(runner: Runner, inputs: Images, seconds: float) -> float:
    """Measure images per second of an engine that is called in a loop."""
    (spec,) = runner.inputs
    started = time.perf_counter()
    runs = 0
    while runs == 0 or time.perf_counter() - started < seconds:
        runner.infer({spec.name: inputs})
        runs += 1
    return runs * len(inputs) / (time.perf_counter() - started)


def _served(course: _Course, protocol: str, *, clients: int, images: int) -> float:
    """Measure images per second of clients that each send a request as soon as the previous one is answered.

    The time is counted from the first response to the last, during which the engine never waits for a
    request.
    """
    inputs = course.inputs[:images]
    answered: list[float] = []
    ends = time.perf_counter() + course.seconds

    def send() -> None:
        library: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
        name = "image" if course.stage == "encoder" else "code"
        tensor = library.InferInput(name, list(inputs.shape), "UINT8")
        tensor.set_data_from_numpy(inputs)
        with library.InferenceServerClient(course.server[protocol]) as client:
            while time.perf_counter() < ends:
                client.infer(course.stage, [tensor])
                answered.append(time.perf_counter())

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (len(answered) - 1) * images / (max(answered) - min(answered))


if __name__ == "__main__":
    main()
