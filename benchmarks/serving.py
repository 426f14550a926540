"""What the local server leaves of an engine's rate: ``ccr-layer1`` at 224x224, T=8, on a CPU.

``python -m benchmarks.serving`` exports untrained weights (speed does not depend on them), calibrates them
on a few crops, builds INT8 engines by OpenVINO and measures, taken in turn, the images per second of the bare
engine and of clients that keep the local server busy; into ``benchmarks/results/serving-ccr-layer1.json``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
import pydantic
import tritonclient.grpc
import tritonclient.http

from benchmarks.int8 import untrained_bundle
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.quantization.recipe import Recipe
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.terminal import print_table
from ccr_deploy.workflow.calibrate import calibrate_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.stages import Stage

    Images = npt.NDArray[np.uint8]
    Turn = Callable[[], float]
    """Measures for a few seconds, and returns images per second."""

RESULTS = Path(__file__).parent / "results"
TARGET = "cpu-openvino"
BATCHES = (1, 8)
Way = Literal["HTTP", "gRPC", "gRPC, an image each"]


@dataclass(frozen=True)
class ServedRate:
    """What one stage's engine does at one batch size, alone and behind the server.

    `way` says how requests came: as large as the batch, or an image each, which the server joins. The rates
    are medians over the rounds; the share is the median, lowest and highest over the rounds' own ratios.
    """

    stage: str
    batch: int
    way: Way
    engine_images_per_second: float
    served_images_per_second: float
    share_percent: float
    lowest_share_percent: float
    highest_share_percent: float


@dataclass(frozen=True)
class ServingBenchmark:
    """One run of this script."""

    schema_version: int
    model: str
    target: str
    precision: str
    rounds: int
    turn_seconds: float
    machine: MachineState
    rates: tuple[ServedRate, ...]


@click.command()
@click.option("--preset", "name", default="ccr-layer1", show_default=True, help="Which model.")
@click.option("--rounds", default=4, show_default=True, help="Turns of each way.")
@click.option("--turn-seconds", default=3.0, show_default=True, help="How long a turn takes.")
def main(name: str, rounds: int, turn_seconds: float) -> None:
    """Build, serve, measure, and write the result beside this script."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        factory = _engines(Path(folder), name)
        model = factory.bundle.manifest.model
        machine = machine_state()
        servers = {batch: stack.enter_context(_server(factory, batch)) for batch in BATCHES}
        rates = []
        for stage, inputs in _inputs(factory.bundle).items():
            with factory.load(factory.find(stage)) as runner:
                for batch in BATCHES:
                    course = _Course(stage, inputs[:batch], servers[batch], turn_seconds)
                    rates += _rates(course, runner, rounds)
        result = ServingBenchmark(
            schema_version=1,
            model=f"{name}, untrained, {model.image_height}x{model.image_width}, T={model.iterations}",
            target=TARGET,
            precision="int8",
            rounds=rounds,
            turn_seconds=turn_seconds,
            machine=machine,
            rates=tuple(rates),
        )
    text = pydantic.TypeAdapter(ServingBenchmark).dump_json(result, indent=2) + b"\n"
    write_atomically(RESULTS / f"serving-{name}.json", text)
    print_table(stdout_console(), serving_table(result))


def _engines(root: Path, name: str) -> EngineFactory:
    """INT8 engines of both stages; so few pictures calibrate them that they are good for timing alone."""
    bundle = untrained_bundle(name, root)
    calibrate_bundle(bundle, root / "images", Recipe(samples=16, held_out_samples=1))
    (root / "engines").mkdir()
    store = EngineStore(root / "engines")
    precisions = stage_precisions("int8")
    factory = EngineFactory(Bundle.open(root / "bundle"), TARGET, store, precisions)
    for stage in precisions:
        factory.build(stage)
    store.choose(factory.bundle, TARGET, {stage: factory.resolved(stage) for stage in precisions})
    return factory


def _inputs(bundle: Bundle) -> dict[Stage, Images]:
    """As many random inputs of each stage as its largest batch has."""
    generator = np.random.default_rng(0)
    stages: tuple[Stage, ...] = ("encoder", "classifier")
    return {
        stage: generator.integers(0, 256, (max(BATCHES), *shape), dtype=np.uint8)
        for stage in stages
        for shape in bundle.manifest.input_shapes(stage).values()
    }


@contextlib.contextmanager
def _server(factory: EngineFactory, batch: int) -> Iterator[dict[str, str]]:
    """A server of its own for a batch size, and its addresses by protocol."""
    command = [sys.executable, "-m", "ccr_deploy", "serve", str(factory.bundle.path), "--target", TARGET]
    options = ["--engines", str(factory.store.path), "--json", "--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [*command, *options, "--max-batch", str(batch)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        listening = json.loads(process.stdout.readline())
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield {name: f"127.0.0.1:{listening[f'{name}_port']}" for name in ("http", "grpc")}
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class _Course:
    """What is measured: a stage at the batch size of `inputs`, in turns of some seconds."""

    stage: Stage
    inputs: Images
    server: dict[str, str]
    seconds: float


def _rates(course: _Course, runner: Runner, rounds: int) -> list[ServedRate]:
    """The engine and every way to it, in turn."""
    batch = len(course.inputs)
    ways: dict[Way, Turn] = {
        "HTTP": lambda: _served(course, "http", clients=3, images=batch),
        "gRPC": lambda: _served(course, "grpc", clients=3, images=batch),
    }
    if batch > 1:
        ways["gRPC, an image each"] = lambda: _served(course, "grpc", clients=2 * batch, images=1)
    found: dict[Way, list[tuple[float, float]]] = {way: [] for way in ways}
    _bare(runner, course.inputs, 0)  # the first run of a batch size is not like the others
    with TerminalProgress().task(f"{course.stage}, batch {batch}", rounds) as advance:
        for _ in range(rounds):
            engine = _bare(runner, course.inputs, course.seconds)
            for way, turn in ways.items():
                found[way].append((engine, turn()))
            advance(1)
    return [_rate(course.stage, batch, way, pairs) for way, pairs in found.items()]


def _rate(stage: str, batch: int, way: Way, pairs: list[tuple[float, float]]) -> ServedRate:
    shares = [100 * served / engine for engine, served in pairs]
    return ServedRate(
        stage=stage,
        batch=batch,
        way=way,
        engine_images_per_second=round(median(engine for engine, _ in pairs), 2),
        served_images_per_second=round(median(served for _, served in pairs), 2),
        share_percent=round(median(shares), 1),
        lowest_share_percent=round(min(shares), 1),
        highest_share_percent=round(max(shares), 1),
    )


def _bare(runner: Runner, inputs: Images, seconds: float) -> float:
    """Images per second of an engine that is called in a loop."""
    (spec,) = runner.inputs
    started = time.perf_counter()
    runs = 0
    while runs == 0 or time.perf_counter() - started < seconds:
        runner.infer({spec.name: inputs})
        runs += 1
    return runs * len(inputs) / (time.perf_counter() - started)


def _served(course: _Course, protocol: str, *, clients: int, images: int) -> float:
    """Images per second of clients that each send their next request as soon as the last is answered.

    Between the first answer and the last the engine never waits for a request.
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


def serving_table(result: ServingBenchmark) -> Table:
    """One row a way."""
    machine = result.machine
    return Table(
        title="The local server and the bare engine",
        columns=(
            "stage",
            "batch",
            "requests",
            "engine images/s",
            "served images/s",
            "share",
            "in the rounds",
        ),
        rows=tuple(
            (
                rate.stage,
                str(rate.batch),
                rate.way,
                f"{rate.engine_images_per_second:.1f}",
                f"{rate.served_images_per_second:.1f}",
                f"{rate.share_percent:.0f} %",
                f"{rate.lowest_share_percent:.0f} – {rate.highest_share_percent:.0f}",
            )
            for rate in result.rates
        ),
        note=f"{result.model}, {result.target} {result.precision}, {result.rounds} rounds of "
        f"{result.turn_seconds:g} s in turn, clients on the same {machine.usable_cores} cores of "
        f"{machine.processor}",
    )


if __name__ == "__main__":
    main()
