"""The table of `benchmark --roofline`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, number

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.roofline_results import Roofline


def roofline_table(roofline: Roofline) -> Table:
    """Return a row for each candidate: work, the times that the limits allow, and the share reached."""
    rates = [
        f"{rate.precision.upper()} {rate.gmac_per_second:.1f} GMAC/s ({rate.measured_by})"
        for rate in roofline.matrix_rates
    ]
    bandwidth = f"{roofline.bandwidth.gigabytes_per_second:.1f} GB/s ({roofline.bandwidth.measured_by})"
    return Table.of(
        "Roofline: the times that this machine's limits allow",
        roofline.engines,
        [
            ("candidate", lambda engine: f"{engine.subject}: {engine.candidate}"),
            ("GMAC", lambda engine: number(engine.multiply_accumulates / 1e9, 3)),
            ("MB, least", lambda engine: number(engine.least_bytes / 1e6, 1)),
            ("MB, most", lambda engine: number(engine.most_bytes / 1e6, 1)),
            ("matrix ms", lambda engine: number(engine.matrix_ms, 2)),
            ("memory ms, least", lambda engine: number(engine.least_memory_ms, 2)),
            ("memory ms, most", lambda engine: number(engine.most_memory_ms, 2)),
            ("p50 ms", lambda engine: number(engine.latency_ms_p50, 2)),
            ("bound by", lambda engine: engine.limit or ""),
            ("reached %", lambda engine: number(engine.reached_percent, 0)),
        ],
        note="; ".join(
            (
                *rates,
                f"memory: {bandwidth}",
                "least MB: weights, inputs and outputs once; most MB: what each node reads and writes",
                *(f"not measured: {reason}" for reason in roofline.not_measured),
            )
        ),
    )
