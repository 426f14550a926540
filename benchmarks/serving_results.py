"""The results of `benchmarks.serving`, and their tables."""

from __future__ import annotations

from typing import Literal

from benchmarks.added_latency import AddedLatency, added_latency_table
from benchmarks.scaffold import unreliable_warning
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table

CHEAP_MODEL = "classifier, demo"
"""The model whose engine takes the least time, so that the server's share is the largest."""
Way = Literal["HTTP", "gRPC", "gRPC, one image per request"]
EmptyKind = Literal["kserve", "bare"]


class ServedRate(Record, frozen=True):
    """Throughput of one stage's engine at one batch size, alone and behind the server.

    `way` is the protocol, and whether a request has a whole batch or one image, which the server batches. The
    rates are medians over the rounds; the share is the median, lowest and highest over the rounds' own
    ratios.
    """

    stage: str
    batch: int
    way: Way
    engine_images_per_second: float
    served_images_per_second: float
    share_percent: float
    lowest_share_percent: float
    highest_share_percent: float


class EmptyServer(Record, frozen=True):
    """Latency of a server that computes nothing, seen by the same client.

    `server` is ``kserve`` for KServe's own with an empty model, ``bare`` for uvicorn and gRPC alone, with a
    response that is written in advance.
    """

    server: EmptyKind
    way: str
    p50_ms: float
    p99_ms: float


class ServingBenchmark(Record, frozen=True):
    """One run of this script."""

    schema_version: int
    model: str
    target: str
    precision: str
    rounds: int
    round_seconds: float
    machine: MachineState
    rates: tuple[ServedRate, ...]
    latencies: tuple[AddedLatency, ...]
    empty_server: tuple[EmptyServer, ...]
    unreliable_reasons: tuple[str, ...] = ()


def serving_table(result: ServingBenchmark) -> Table:
    """Return the table, one row for each way of sending requests."""
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
            "lowest – highest share",
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
        f"{result.round_seconds:g} s, interleaved, clients on the same {machine.usable_cores} cores of "
        f"{machine.processor}",
        warning=unreliable_warning(result.unreliable_reasons),
    )


def serving_latency_table(result: ServingBenchmark) -> Table:
    """Return the table of the latency that the server adds at a low rate."""
    count = result.latencies[0].requests
    return added_latency_table(
        "Latency that the local server adds at a low rate",
        result.latencies,
        f"{result.model}, and the demo's classifier, {result.target} {result.precision}, one image per "
        f"request, {count} requests each, interleaved, by tritonclient with binary tensors, on the same "
        f"{result.machine.usable_cores} cores of {result.machine.processor}",
        unreliable_warning(result.unreliable_reasons),
    )


def serving_floor_table(result: ServingBenchmark) -> Table:
    """Return the table of the frameworks' own latency, beside what the server adds to its fastest engine."""
    entries = [entry for entry in result.latencies if entry.model == CHEAP_MODEL]
    p50 = {(entry.server, entry.way): entry.p50_ms for entry in result.empty_server}
    return Table(
        title="Latency of the frameworks alone",
        columns=(
            "requests",
            "added p50",
            "frameworks alone p50",
            "share",
            "KServe's server, empty model p50",
        ),
        rows=tuple(
            (
                entry.way,
                f"{entry.added_p50_ms:.2f} ms",
                f"{p50['bare', entry.way]:.2f} ms",
                f"{100 * p50['bare', entry.way] / entry.added_p50_ms:.0f} %",
                f"{p50['kserve', entry.way]:.2f} ms",
            )
            for entry in entries
            if ("bare", entry.way) in p50
        ),
        note=f"the demo's classifier, {entries[0].requests} requests each, in the same rounds as above",
        warning=unreliable_warning(result.unreliable_reasons),
    )
