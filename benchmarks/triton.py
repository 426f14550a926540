"""A real Triton server's throughput against the bare engines', ``ccr-layer1`` at 224x224, T=8, on a CPU.

``make triton-server``, then ``python -m benchmarks.triton``, exports untrained weights (speed does not
depend on them), packages them, and serves them with the tests' server, whose ONNX Runtime backend is a
Python model. Triton gets single images, more at once than the largest batch; the bare engine gets batches
of that size. The two take turns, and the result is ``benchmarks/results/triton-ccr-layer1.json``.
"""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pydantic

from ccr_deploy.benchmarking.interleaving import speedup_interval
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState, Subject
from ccr_deploy.benchmarking.worker import Competitor, Worker
from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.core.metrics import Interval
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.packaging.triton.models import IMAGE_TO_LABEL
from ccr_deploy.packaging.triton.package import package_triton
from ccr_deploy.packaging.triton.served_stage import CPU_MAX_BATCH
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.terminal import print_table
from tests.triton.server import serving

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import Stage
    from tests.triton.server import TritonServer

RESULTS = Path(__file__).parent / "results"
BATCHES_PER_TURN = {"encoder": 5, "classifier": 25, "chain": 5}
IN_FLIGHT = 2 * CPU_MAX_BATCH
"""So that a full batch waits while one runs."""
SERVED: dict[Subject, tuple[str, tuple[Stage, ...]]] = {
    "encoder": ("encoder", ("encoder",)),
    "classifier": ("classifier", ("classifier",)),
    "chain": (IMAGE_TO_LABEL, ("encoder", "classifier")),
}


@dataclass(frozen=True)
class Throughput:
    """One model's images per second, by medians over the rounds.

    `triton_share` is Triton's rate over the bare engine's; `images_per_execution` is what dynamic batching
    put together, by Triton's statistics, of the model's last step.
    """

    subject: Subject
    bare_images_per_second: float
    triton_images_per_second: float
    triton_share: float
    triton_share_interval: Interval
    images_per_execution: float


@dataclass(frozen=True)
class TritonBenchmark:
    """Triton against the bare engines."""

    schema_version: int
    model: str
    backend: str
    batch: int
    requests_in_flight: int
    rounds: int
    machine: MachineState
    throughputs: tuple[Throughput, ...]


@click.command()
@click.option("--preset", "name", default="ccr-layer1", show_default=True, help="Which model.")
@click.option("--rounds", default=8, show_default=True, help="Turns of each.")
def main(name: str, rounds: int) -> None:
    """Package, serve, measure, and write the result beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bundle = export_bundle(
            untrained_checkpoint(preset(name)), root / "bundle", schedules=("iteration-major",)
        )
        store = EngineStore(root / "engines")
        package_triton(bundle, "cpu", store, root / "repository")
        factory = EngineFactory(bundle, "cpu", store)
        machine = machine_state()
        with serving(root / "repository", root, "--exit-timeout-secs=5") as server:
            found = tuple(_compare(factory, server, subject, rounds) for subject in SERVED)
        model = bundle.manifest.model
        result = TritonBenchmark(
            schema_version=1,
            model=f"{name}, untrained, {model.image_height}x{model.image_width}, T={model.iterations}",
            backend=f"onnxruntime {factory.backend.version}",
            batch=CPU_MAX_BATCH,
            requests_in_flight=IN_FLIGHT,
            rounds=rounds,
            machine=machine,
            throughputs=found,
        )
    text = pydantic.TypeAdapter(TritonBenchmark).dump_json(result, indent=2) + b"\n"
    write_atomically(RESULTS / f"triton-{name}.json", text)
    print_table(stdout_console(), triton_table(result))


def triton_table(result: TritonBenchmark) -> Table:
    """One row a model."""
    return Table(
        title="Triton against the bare engines",
        columns=("what", "bare images/s", "Triton images/s", "share", "95 % interval", "images a run"),
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
        f"in flight, {result.rounds} rounds in turn, on {result.machine.processor}, "
        f"{result.machine.usable_cores} cores",
    )


def _compare(factory: EngineFactory, server: TritonServer, subject: Subject, rounds: int) -> Throughput:
    """Lets the bare engines and Triton take turns."""
    model, stages = SERVED[subject]
    engines = tuple((factory.build(stage)[0].path, factory.precision(stage)) for stage in stages)
    bare = Competitor("bare", True, factory.target.options, engines)
    batches = BATCHES_PER_TURN[subject]
    milliseconds: dict[str, list[float]] = {"bare": [], "triton": []}
    with (
        Worker(bare, CPU_MAX_BATCH) as worker,
        TerminalProgress().task(f"{subject}: bare and Triton", rounds) as advance,
    ):
        worker.wait_until_loaded()
        before = _counts(server, stages[-1])
        for _ in range(rounds):
            milliseconds["bare"].append(float(np.mean(worker.take_turn(batches).nanoseconds)) / 1e6)
            milliseconds["triton"].append(_turn(factory.bundle, server, model, stages[0], batches))
            advance(1)
        images, executions = np.subtract(_counts(server, stages[-1]), before)
    samples = {name: np.array(values)[:, None] for name, values in milliseconds.items()}
    rates = {name: 1000 * CPU_MAX_BATCH / float(np.median(values)) for name, values in samples.items()}
    return Throughput(
        subject=subject,
        bare_images_per_second=rates["bare"],
        triton_images_per_second=rates["triton"],
        triton_share=rates["triton"] / rates["bare"],
        triton_share_interval=speedup_interval(samples["bare"], samples["triton"]),
        images_per_execution=float(images / executions),
    )


def _turn(bundle: Bundle, server: TritonServer, model: str, stage: Stage, batches: int) -> float:
    """Milliseconds that Triton takes for as many images as one batch has, while requests keep waiting.

    As with the bare engine, the first two batches do not count.
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
    """How many images and how many runs Triton counts of a model."""
    address = f"http://{server.http}/v2/models/{model}/versions/1/stats"
    with urllib.request.urlopen(address, timeout=10) as reply:
        (counted,) = json.load(reply)["model_stats"]
    return counted["inference_count"], counted["execution_count"]


if __name__ == "__main__":
    main()
