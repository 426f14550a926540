"""What a payload costs beside the encoder's engine: ``ccr-layer1`` at 224x224, T=8, on a CPU.

``python -m benchmarks.payload`` lets the engine of untrained weights compress random pictures, times how long
each code takes to become a payload and a payload to become its code again, and writes
``benchmarks/results/payload.json``. Each payload is made right after its engine ran, as in production, when
the processor's caches hold the engine's data.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import pydantic

from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.cli.common import stdout_console
from ccr_deploy.codec.payload import OVERHEAD_BYTES, PayloadWriter, decode_payload
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.terminal import print_table

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.codec.contract import CodeContract

MODEL = "ccr-layer1"
BATCHES = (1, 8)
RESULT = Path(__file__).parent / "results" / "payload.json"


@dataclass(frozen=True)
class PayloadTiming:
    """Times of one image's payload in a batch, and of the engine's run of the whole batch before it."""

    batch: int
    runs: int
    engine_ms_p50: float
    encode_us_p50: float
    encode_us_p99: float
    decode_us_p50: float
    decode_us_p99: float


@dataclass(frozen=True)
class PayloadBenchmark:
    """What payloads cost, at several batch sizes."""

    schema_version: int
    machine: MachineState
    model: str
    payload_bytes: int
    timings: tuple[PayloadTiming, ...]


@click.command()
@click.option("--rounds", default=200, show_default=True, help="Images at each batch size.")
def main(rounds: int) -> None:
    """Measure, and write the result beside this script."""
    result = _measured(rounds)
    write_atomically(RESULT, pydantic.TypeAdapter(PayloadBenchmark).dump_json(result, indent=2) + b"\n")
    print_table(stdout_console(), payload_table(result))


def _measured(rounds: int) -> PayloadBenchmark:
    machine = machine_state()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = untrained_checkpoint(preset(MODEL))
        bundle = export_bundle(checkpoint, Path(folder) / "bundle", schedules=("iteration-major",))
        factory = EngineFactory(bundle, "cpu", EngineStore(Path(folder) / "engines"))
        engine, _ = factory.build("encoder")
        contract = bundle.manifest.contract
        with factory.load(engine) as runner:
            found = tuple(_timing(runner, contract, batch, rounds // batch) for batch in BATCHES)
    size = f"{contract.image_height}x{contract.image_width}"
    return PayloadBenchmark(
        schema_version=1,
        machine=machine,
        model=f"{MODEL}, untrained, {size}, T={contract.iterations}",
        payload_bytes=OVERHEAD_BYTES + contract.code_bytes,
        timings=found,
    )


def _timing(runner: Runner, contract: CodeContract, batch: int, runs: int) -> PayloadTiming:
    writer = PayloadWriter(contract)
    shape = (batch, contract.image_height, contract.image_width, 3)
    pictures = (np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in range(runs))
    engine_ns, encode_ns, decode_ns = np.array([_run(runner, writer, contract, one) for one in pictures]).T
    return PayloadTiming(
        batch=batch,
        runs=runs,
        engine_ms_p50=round(float(np.median(engine_ns)) / 1e6, 2),
        encode_us_p50=round(float(np.median(encode_ns)) / 1e3 / batch, 2),
        encode_us_p99=round(float(np.percentile(encode_ns, 99)) / 1e3 / batch, 2),
        decode_us_p50=round(float(np.median(decode_ns)) / 1e3 / batch, 2),
        decode_us_p99=round(float(np.percentile(decode_ns, 99)) / 1e3 / batch, 2),
    )


def _run(
    runner: Runner, writer: PayloadWriter, contract: CodeContract, images: npt.NDArray[np.uint8]
) -> tuple[int, int, int]:
    """Nanoseconds of the engine's run, of making its payloads, and of reading them."""
    started = time.perf_counter_ns()
    codes = runner.infer({"image": images})["code"].astype(np.uint8, copy=False)
    ran = time.perf_counter_ns()
    ready = time.perf_counter_ns()  # the clock itself is no longer cold, the payload's code is
    payloads = writer.payloads(codes)
    encoded = time.perf_counter_ns()
    for payload in payloads:
        decode_payload(payload, contract)
    return ran - started, encoded - ready, time.perf_counter_ns() - encoded


def payload_table(result: PayloadBenchmark) -> Table:
    """One row for making a payload, one for reading it."""
    return Table(
        title="A payload beside the engine",
        columns=(
            "batch",
            "engine, p50 ms",
            "code to payload, p50 µs",
            "p99 µs",
            "payload to code, p50 µs",
            "p99 µs",
        ),
        rows=tuple(
            (
                str(timing.batch),
                f"{timing.engine_ms_p50:.0f}",
                f"{timing.encode_us_p50:.1f}",
                f"{timing.encode_us_p99:.1f}",
                f"{timing.decode_us_p50:.1f}",
                f"{timing.decode_us_p99:.1f}",
            )
            for timing in result.timings
        ),
        note=f"{result.model}: payloads of {result.payload_bytes} bytes, µs an image, right after a run of "
        f"the encoder's engine, {_busy(result.machine)}on {result.machine.processor}, "
        f"{result.machine.usable_cores} cores",
    )


def _busy(machine: MachineState) -> str:
    """What must be said of a machine that other processes used meanwhile."""
    busy = machine.cpu_busy_percent or 0
    return f"while other processes took {busy:.0f} % of the processor, " if busy >= 10 else ""


if __name__ == "__main__":
    main()
