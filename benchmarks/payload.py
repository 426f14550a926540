"""What a payload costs beside the encoder's engine: ``ccr-layer1`` at 224x224, T=8, batch 1, on a CPU.

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

from ccr_deploy.atomic import write_atomically
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.cli.common import stdout_console
from ccr_deploy.engine_factory import EngineFactory
from ccr_deploy.engine_store import EngineStore
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.payload import OVERHEAD_BYTES, PayloadWriter, decode_payload
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.terminal import print_table

if TYPE_CHECKING:
    from ccr_deploy.backends.base import Runner
    from ccr_deploy.contract import CodeContract

MODEL = "ccr-layer1"
RESULT = Path(__file__).parent / "results" / "payload.json"


@dataclass(frozen=True)
class PayloadBenchmark:
    """Times of one payload, and of the engine run before it."""

    schema_version: int
    machine: MachineState
    model: str
    payload_bytes: int
    rounds: int
    engine_ms_p50: float
    encode_us_p50: float
    encode_us_p99: float
    decode_us_p50: float
    decode_us_p99: float


@click.command()
@click.option("--rounds", default=200, show_default=True, help="Payloads.")
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
            writer = PayloadWriter(contract)
            times = np.array([_round(runner, writer, contract, seed) for seed in range(rounds)])
    engine_ns, encode_ns, decode_ns = times.T
    size = f"{contract.image_height}x{contract.image_width}"
    return PayloadBenchmark(
        schema_version=1,
        machine=machine,
        model=f"{MODEL}, untrained, {size}, T={contract.iterations}",
        payload_bytes=OVERHEAD_BYTES + contract.code_bytes,
        rounds=rounds,
        engine_ms_p50=round(float(np.median(engine_ns)) / 1e6, 2),
        encode_us_p50=round(float(np.median(encode_ns)) / 1e3, 2),
        encode_us_p99=round(float(np.percentile(encode_ns, 99)) / 1e3, 2),
        decode_us_p50=round(float(np.median(decode_ns)) / 1e3, 2),
        decode_us_p99=round(float(np.percentile(decode_ns, 99)) / 1e3, 2),
    )


def _round(runner: Runner, writer: PayloadWriter, contract: CodeContract, seed: int) -> tuple[int, int, int]:
    """Nanoseconds of the engine's run, of making its payload, and of reading it."""
    shape = (1, contract.image_height, contract.image_width, 3)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    started = time.perf_counter_ns()
    (code,) = runner.infer({"image": images})["code"].astype(np.uint8, copy=False)
    ran = time.perf_counter_ns()
    payload = writer.payload(code)
    encoded = time.perf_counter_ns()
    decode_payload(payload, contract)
    return ran - started, encoded - ran, time.perf_counter_ns() - encoded


def payload_table(result: PayloadBenchmark) -> Table:
    """One row for making a payload, one for reading it."""
    return Table(
        title="A payload beside the engine",
        columns=("what", "p50 µs", "p99 µs"),
        rows=(
            ("code to payload", f"{result.encode_us_p50:.1f}", f"{result.encode_us_p99:.1f}"),
            ("payload to code", f"{result.decode_us_p50:.1f}", f"{result.decode_us_p99:.1f}"),
        ),
        note=f"{result.model}: {result.rounds} payloads of {result.payload_bytes} bytes, each after a run of "
        f"the encoder's engine, which takes {result.engine_ms_p50:.0f} ms, on "
        f"{result.machine.processor}, {result.machine.usable_cores} cores",
    )


if __name__ == "__main__":
    main()
