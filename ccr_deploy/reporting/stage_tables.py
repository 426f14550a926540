"""Tables of the chain from image file to label."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, interval_text, number, significant

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.stage_results import EndToEnd, Energy, StartUp

_STEP_NAMES = {
    "decode": "decode the file",
    "resize": "resize and crop",
    "encoder": "encoder",
    "payload": "pack the payload",
    "payload read": "read the payload",
    "classifier": "classifier",
    "label": "softmax and label",
    "sum": "sum of the steps",
    "chain": "chain, without time stamps",
}


def stage_tables(found: EndToEnd) -> list[Table]:
    """Return the tables of the steps, of what one image needs, and of the start of a process."""
    return [steps_table(found), needs_table(found), start_table(found.start_up)]


def steps_table(found: EndToEnd) -> Table:
    """Return a row for each step, for their sum and for the chain."""
    unaccounted = interval_text(found.unaccounted_ms_interval, 3)
    return Table.of(
        "From file to label, one image at a time",
        [*found.steps, found.sum, found.chain],
        [
            ("step", lambda time: _STEP_NAMES[time.step]),
            ("p50 ms", lambda time: number(time.latency_ms_p50, 3)),
            ("95 % interval", lambda time: interval_text(time.latency_ms_p50_interval, 3)),
            ("p99 ms", lambda time: number(time.latency_ms_p99, 3)),
            ("95 % interval of p99", lambda time: interval_text(time.latency_ms_p99_interval, 3)),
            ("share", lambda time: f"{100 * time.latency_ms_p50 / found.chain.latency_ms_p50:.1f} %"),
        ],
        note=f"{found.images}; share: of the chain's median; the chain minus the sum of the steps: "
        f"{found.unaccounted_ms:.3f} ms ({unaccounted})",
    )


def needs_table(found: EndToEnd) -> Table:
    """Return what one image needs: bytes on the network, memory, energy."""
    sizes = found.image_bytes
    rows = [
        ("sent over the network (the payload)", f"{sizes.payload:,} bytes"),
        ("its image file", f"{sizes.file:,.0f} bytes"),
        ("its pixels", f"{sizes.pixels:,} bytes"),
        ("peak memory of the process", f"{found.peak_memory_mib:,.0f} MiB"),
    ]
    if found.device_memory_mib is not None:
        rows.append(("memory on the GPU", f"{found.device_memory_mib:,.0f} MiB"))
    return Table(
        "What one image needs",
        ("what", "found"),
        (*rows, *_energy_rows(found.energy)),
        note=_energy_note(found.energy),
    )


def start_table(start: StartUp) -> Table:
    """Return a row for each part of the start of a process."""
    parts = (
        ("interpreter and imports", start.imports_ms),
        ("load both engines", start.load_ms),
        ("first answer", start.first_answer_ms),
        ("in all", start.total_ms),
    )
    return Table.of(
        "From the start of a process to its first label",
        parts,
        [
            ("part", lambda part: part[0]),
            ("median ms", lambda part: number(statistics.median(part[1]), 1)),
            ("lowest", lambda part: number(min(part[1]), 1)),
            ("highest", lambda part: number(max(part[1]), 1)),
        ],
        note=f"{len(start.total_ms)} new processes; the files that they read are in the page cache "
        f"({start.page_cache})",
    )


def _energy_rows(energy: Energy) -> list[tuple[str, str]]:
    if energy.joules_per_image is None or energy.net_joules_per_image is None:
        return [("energy", f"not measured: {energy.reason}")]
    return [
        ("energy", f"{significant(energy.joules_per_image)} J"),
        ("energy without the idle power", f"{significant(energy.net_joules_per_image)} J"),
    ]


def _energy_note(energy: Energy) -> str:
    if energy.source is None:
        return ""
    return (
        f"energy: {energy.source} ({energy.covers}), {number(energy.watts, 1)} W under load, "
        f"{number(energy.idle_watts, 1)} W idle, {energy.images} images in {energy.seconds:.1f} s"
    )
