"""Measure the time for payloads relative to the encoder's engine: ``ccr-layer1``, 224x224, T=8, on a CPU.

``python -m benchmarks.payload`` compresses random images with an engine of untrained weights, measures the
time to encode each code to a payload and to decode it, and writes ``benchmarks/results/payload.json``. Each
payload is made right after its engine ran, as in production, when the processor's caches hold the engine's
data.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import numpy as np

from benchmarks.scaffold import (
    MODEL,
    machine_words,
    publish,
    rounds_option,
    temporary_folder,
    untrained_bundle,
    untrained_model,
)
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.codec.payload import OVERHEAD_BYTES, PayloadWriter, decode_payload
from ccr_deploy.core.records import Record
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.codec.contract import CodeContract

BATCHES = (1, 8)


class PayloadTiming(Record, frozen=True):
    """Times for one image's payload in a batch, and for the engine's run of the whole batch."""

    batch: int
    runs: int
    engine_ms_p50: float
    encode_us_p50: float
    encode_us_p99: float
    decode_us_p50: float
    decode_us_p99: float


class PayloadBenchmark(Record, frozen=True):
    """Times for payloads at several batch sizes."""

    schema_version: int
    machine: MachineState
    model: str
    payload_bytes: int
    timings: tuple[PayloadTiming, ...]


@click.command()
@rounds_option(200, "Images at each batch size.")
def main(rounds: int) -> None:
    """Measure, and write the result beside this script."""
    result = _measured(rounds)
    publish("payload", result, payload_table(result))


def _measured(rounds: int) -> PayloadBenchmark:
    machine = machine_state()
    with temporary_folder() as folder:
        bundle = untrained_bundle(MODEL, folder)
        factory = EngineFactory(bundle, "cpu", EngineStore(folder / "engines"))
        engine, _ = factory.build("encoder")
        contract = bundle.manifest.contract
        with factory.load(engine) as runner:
            found = tuple(_timing(runner, contract, batch, rounds // batch) for batch in BATCHES)
    return PayloadBenchmark(
        schema_version=1,
        machine=machine,
        model=untrained_model(MODEL, bundle),
        payload_bytes=OVERHEAD_BYTES + contract.code_bytes,
        timings=found,
    )


def _timing(runner: Runner, contract: CodeContract, batch: int, runs: int) -> PayloadTiming:
    writer = PayloadWriter(contract)
    shape = (batch, contract.image_height, contract.image_width, 3)
    images = (np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in range(runs))
    engine_ns, encode_ns, decode_ns = np.array([_run(runner, writer, contract, one) for one in images]).T
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
    """Measure the nanoseconds of an engine's run, of encoding its payloads, and of decoding them."""
    started = time.perf_counter_ns()
    codes = runner.infer({"image": images})["code"].astype(np.uint8, copy=False)
    ran = time.perf_counter_ns()
    ready = time.perf_counter_ns()  # warms up the clock's code; the payload's code stays cold
    payloads = writer.payloads(codes)
    encoded = time.perf_counter_ns()
    for payload in payloads:
        decode_payload(payload, contract)
    return ran - started, encoded - ready, time.perf_counter_ns() - encoded


def payload_table(result: PayloadBenchmark) -> Table:
    """Return the table: one row for encoding a payload, one for decoding it."""
    return Table(
        title="Time for a payload, compared with the engine",
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
        note=f"{result.model}: payloads of {result.payload_bytes} bytes, µs per image, right after a run of "
        f"the encoder's engine, {_busy(result.machine)}on {machine_words(result.machine)}",
    )


def _busy(machine: MachineState) -> str:
    """Return a warning if other processes used the machine during the measurement."""
    busy = machine.cpu_busy_percent or 0
    return f"while other processes took {busy:.0f} % of the processor, " if busy >= 10 else ""


if __name__ == "__main__":
    main()
