"""Compare a Triton server with bare engines: ``ccr-layer1``, 224x224, T=8, on a CPU.

``make triton-server``, then ``python -m benchmarks.triton``, exports untrained weights (speed does not depend
on them), packages them, and serves them with `benchmarks.hosts.triton`, whose ONNX Runtime backend is a
Python model. Triton receives single images, more at once than the largest batch; the bare engine receives
batches of that size. Both are measured in each round. Then it measures the latency that Triton adds at a low
rate, as `benchmarks.serving` does for the local server, also to the demo's classifier, whose engine takes
less than 1 ms. It takes about five minutes on two idle cores, and writes
``benchmarks/results/triton-ccr-layer1.json``.
"""

from __future__ import annotations

import json
import time
import urllib.request
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.added_latency import AddedLatency, added_latency_table, measure_stage
from benchmarks.hosts.triton.server import serving
from benchmarks.scaffold import (
    interleaved,
    machine_words,
    preset_option,
    publish,
    rounds_option,
    temporary_folder,
    unreliable_warning,
    untrained_bundle,
    untrained_model,
    watched,
)
from ccr_deploy.benchmarking.contention import watch_start
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.results import MachineState, Subject
from ccr_deploy.benchmarking.statistics import median_ratio_interval
from ccr_deploy.benchmarking.worker import Candidate, Worker
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.packaging.triton.models import IMAGE_TO_LABEL
from ccr_deploy.packaging.triton.package import package_triton
from ccr_deploy.packaging.triton.served_stage import CPU_MAX_BATCH
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.hosts.triton.server import TritonServer
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage

BATCHES_PER_ROUND = {"encoder": 5, "classifier": 25, "chain": 5}
DEMO_ROUNDS_FACTOR = 3
"""Rounds with the demo's classifier per round with a large engine: they are short."""
IN_FLIGHT = 2 * CPU_MAX_BATCH
"""Enough requests in flight that a full batch waits while another runs."""
SERVED: dict[Subject, tuple[str, tuple[Stage, ...]]] = {
    "encoder": ("encoder", ("encoder",)),
    "classifier": ("classifier", ("classifier",)),
    "chain": (IMAGE_TO_LABEL, ("encoder", "classifier")),
}


class Throughput(Record, frozen=True):
    """One model's images per second, by medians over the rounds.

    `triton_share` is Triton's rate divided by the bare engine's; `images_per_execution` is the average batch
    of dynamic batching in the model's last step, from Triton's statistics.
    """

    subject: Subject
    bare_images_per_second: float
    triton_images_per_second: float
    triton_share: float
    triton_share_interval: Interval
    images_per_execution: float


class TritonBenchmark(Record, frozen=True):
    """Results of Triton and of the bare engines."""

    schema_version: int
    model: str
    backend: str
    batch: int
    requests_in_flight: int
    rounds: int
    machine: MachineState
    throughputs: tuple[Throughput, ...]
    latencies: tuple[AddedLatency, ...]
    unreliable_reasons: tuple[str, ...]


@click.command()
@preset_option
@rounds_option(4, "Rounds of the throughput.")
@click.option(
    "--latency-rounds", default=12, show_default=True, help="Rounds of the latency, of 5 requests each."
)
def main(name: str, rounds: int, latency_rounds: int) -> None:
    """Package, serve, measure, and write the result beside this script."""
    with temporary_folder() as root:
        bundle, factory = _packaged(name, root)
        _, demo = _packaged("demo", root / "demo")
        contention = [watch_start()]
        machine = machine_state(start=contention[0])
        throughputs: list[Throughput] = []
        latencies: list[AddedLatency] = []
        with serving(root / "repository", root, "--exit-timeout-secs=5") as server:
            for subject, (_, stages) in SERVED.items():
                with watched(subject, contention):
                    throughputs.append(_compare(factory, server, subject, rounds))
                    if len(stages) == 1:
                        latencies += _added_latency(subject, factory, server, stages[0], latency_rounds)
        with (
            serving(root / "demo" / "repository", root / "demo", "--exit-timeout-secs=5") as server,
            watched("classifier", contention),
        ):
            latencies += _added_latency(
                "classifier, demo", demo, server, "classifier", DEMO_ROUNDS_FACTOR * latency_rounds
            )
        result = TritonBenchmark(
            schema_version=2,
            model=untrained_model(name, bundle),
            backend=f"onnxruntime {factory.backend.version}",
            batch=CPU_MAX_BATCH,
            requests_in_flight=IN_FLIGHT,
            rounds=rounds,
            machine=machine,
            throughputs=tuple(throughputs),
            latencies=tuple(latencies),
            unreliable_reasons=unreliable_reasons(machine.usable_cores, contention),
        )
    publish(f"triton-{name}", result, triton_table(result), triton_latency_table(result))


def _packaged(name: str, root: Path) -> tuple[Bundle, EngineFactory]:
    """Package an untrained model's engines as ``root/repository``; return its bundle and engines."""
    root.mkdir(exist_ok=True)
    bundle = untrained_bundle(name, root)
    store = EngineStore(root / "engines")
    package_triton(bundle, "cpu", store, root / "repository")
    return bundle, EngineFactory(bundle, "cpu", store)


def triton_table(result: TritonBenchmark) -> Table:
    """Return the table, one row per model."""
    return Table(
        title="Triton compared with the bare engines",
        columns=(
            "stage or chain",
            "bare images/s",
            "Triton images/s",
            "share",
            "95 % interval",
            "images per run",
        ),
        rows=tuple(
            (
                entry.subject,
                f"{entry.bare_images_per_second:.1f}",
                f"{entry.triton_images_per_second:.1f}",
                f"{entry.triton_share:.0%}",
                f"{entry.triton_share_interval.low:.0%} – {entry.triton_share_interval.high:.0%}",
                f"{entry.images_per_execution:.1f}",
            )
            for entry in result.throughputs
        ),
        note=f"{result.model}, batch {result.batch}, {result.backend}, {result.requests_in_flight} requests "
        f"in flight, {result.rounds} rounds, interleaved, on {machine_words(result.machine)}",
        warning=unreliable_warning(result.unreliable_reasons),
    )


def triton_latency_table(result: TritonBenchmark) -> Table:
    """Return the table of the latency that Triton adds at a low rate."""
    return added_latency_table(
        "Latency that Triton adds at a low rate",
        result.latencies,
        f"{result.model}, and the demo's classifier, {result.backend}, one image per request, "
        f"{result.latencies[0].requests} requests each or more, interleaved, by tritonclient with binary "
        f"tensors, on {machine_words(result.machine)}",
        unreliable_warning(result.unreliable_reasons),
    )


def _compare(factory: EngineFactory, server: TritonServer, subject: Subject, rounds: int) -> Throughput:
    """Measure the bare engines and Triton, interleaved."""
    model, stages = SERVED[subject]
    engines = tuple((factory.build(stage)[0].path, factory.precision(stage)) for stage in stages)
    bare = Candidate("bare", True, factory.target.options, engines)
    batches = BATCHES_PER_ROUND[subject]
    with Worker(bare, CPU_MAX_BATCH) as worker:
        worker.wait_until_loaded()
        before = _counts(server, stages[-1])
        measurements: dict[str, Callable[[], float]] = {
            "bare": lambda: float(np.mean(worker.run_round(batches).nanoseconds)) / 1e6,
            "triton": lambda: _triton_round(factory.bundle, server, model, stages[0], batches),
        }
        milliseconds = interleaved(f"{subject}: bare and Triton", measurements, rounds)
        images, executions = np.subtract(_counts(server, stages[-1]), before)
    samples = {name: np.array(values)[:, None] for name, values in milliseconds.items()}
    rates = {name: 1000 * CPU_MAX_BATCH / float(np.median(values)) for name, values in samples.items()}
    return Throughput(
        subject=subject,
        bare_images_per_second=rates["bare"],
        triton_images_per_second=rates["triton"],
        triton_share=rates["triton"] / rates["bare"],
        triton_share_interval=median_ratio_interval(samples["bare"], samples["triton"]),
        images_per_execution=float(images / executions),
    )


def _added_latency(
    model: str, factory: EngineFactory, server: TritonServer, stage: Stage, rounds: int
) -> tuple[AddedLatency, ...]:
    """Measure the latency that Triton adds to one stage's engine at a low rate."""
    addresses = {"http": server.http, "grpc": server.grpc}
    return measure_stage(model, stage, factory, addresses, rounds=rounds).added()


def _triton_round(bundle: Bundle, server: TritonServer, model: str, stage: Stage, batches: int) -> float:
    """Measure Triton's milliseconds per batch of images, with enough requests in flight for full batches.

    As for the bare engine, the first two batches are not counted.
    """
    import tritonclient.grpc as triton

    ((name, shape),) = bundle.manifest.input_shapes(stage).items()
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    tensor = triton.InferInput(name, list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    answers: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    with triton.InferenceServerClient(server.grpc) as client:

        def send() -> None:
            client.async_infer(
                model,
                [tensor],
                lambda result, error: answers.put((time.perf_counter_ns(), error)),  # noqa: ARG005
            )

        total = (2 + batches) * CPU_MAX_BATCH
        for _ in range(IN_FLIGHT):
            send()
        ends = []
        for number in range(total):
            end, error = answers.get(timeout=120)
            if error:
                raise click.ClickException(f"Triton refused a request: {error}")
            ends.append(end)
            if number + IN_FLIGHT < total:
                send()
    return (ends[-1] - ends[2 * CPU_MAX_BATCH - 1]) / 1e6 / batches


def _counts(server: TritonServer, model: str) -> tuple[int, int]:
    """Return the numbers of images and of runs that Triton counted for a model."""
    address = f"http://{server.http}/v2/models/{model}/versions/1/stats"
    with urllib.request.urlopen(address, timeout=10) as reply:
        (counted,) = json.load(reply)["model_stats"]
    return counted["inference_count"], counted["execution_count"]


if __name__ == "__main__":
    main()
