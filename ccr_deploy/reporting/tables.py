"""Tables of benchmarks and of models, and the summary of both results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.models.iterations import named_iterations
from ccr_deploy.reporting.method_lines import method_parts
from ccr_deploy.reporting.roofline_table import roofline_table
from ccr_deploy.reporting.stage_tables import stage_tables
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ccr_deploy.benchmarking.results import BenchmarkReport, Subject, Timing
    from ccr_deploy.export.description import ModelDescription
    from ccr_deploy.verification.results import VerificationReport

_NO_RESULT = "–"
SUMMARY_TITLE = "Engines compared with PyTorch eager"
SUMMARY_COLUMNS = (
    "stage",
    "precision",
    "parity",
    "top-1: PyTorch → engine",
    "p50 ms",
    "speed-up",
    "95 % interval",
)


def benchmark_tables(report: BenchmarkReport) -> list[Table]:
    """Return the timings, then the chain from file to label and the roofline, if they were measured."""
    shown = {
        "GPU p50 ms": _has_device_latency(report),
        "no copies": any(timing.latency_without_copies_ms_p50 is not None for timing in report.timings),
        "GPU, no copies": any(
            timing.device_latency_without_copies_ms_p50 is not None for timing in report.timings
        ),
        "GPU MiB": any(timing.device_memory_mib is not None for timing in report.timings),
    }
    columns: list[tuple[str, Callable[[Timing], str]]] = [
        ("candidate", lambda timing: f"{timing.subject}: {timing.candidate}"),
        ("p50 ms", lambda timing: number(timing.latency_ms_p50, 2)),
        ("p90 ms", lambda timing: number(timing.latency_ms_p90, 2)),
        ("p99 ms", lambda timing: number(timing.latency_ms_p99, 2)),
        ("no copies", lambda timing: number(timing.latency_without_copies_ms_p50, 2)),
        ("GPU p50 ms", lambda timing: number(timing.device_latency_ms_p50, 2)),
        ("GPU, no copies", lambda timing: number(timing.device_latency_without_copies_ms_p50, 2)),
        ("images/s", lambda timing: number(timing.images_per_second, 1)),
        ("peak MiB", lambda timing: number(timing.peak_memory_mib, 0)),
        ("GPU MiB", lambda timing: number(timing.device_memory_mib, 0)),
        ("speed-up", lambda timing: speedup_cells(timing)[0]),
        ("95 % interval", lambda timing: speedup_cells(timing)[1]),
    ]
    return [
        Table.of(
            f"Speed, batch {report.batch}, {report.threads} threads"
            + (" (unreliable)" if report.unreliable_reasons else ""),
            report.timings,
            [column for column in columns if shown.get(column[0], True)],
            note=_benchmark_note(report),
            warning=unreliable_line(report.unreliable_reasons),
        ),
        *(stage_tables(report.end_to_end) if report.end_to_end else []),
        *([roofline_table(report.roofline)] if report.roofline else []),
    ]


def _has_device_latency(report: BenchmarkReport) -> bool:
    return any(timing.device_latency_ms_p50 is not None for timing in report.timings)


def _benchmark_note(report: BenchmarkReport) -> str:
    device = report.machine.gpu or report.machine.processor
    parts = [
        f"{report.rounds} interleaved rounds, each candidate in its own process, on {device}",
        "speed-up: over PyTorch eager",
    ]
    if _has_device_latency(report):
        parts.append("GPU p50: by CUDA events, the others: wall clock")
    if any(timing.latency_without_copies_ms_p50 is not None for timing in report.timings):
        parts.append("no copies: median of runs whose inputs and outputs stay on the GPU")
    parts.extend((*gpu_load_parts(report.timings), *method_parts(report)))
    for entry in report.fastest_pytorch:
        interval = interval_text(entry.speedup_interval, 2)
        parts.append(
            f"{entry.subject}: {entry.speedup:.2f} times as fast ({interval}) as the fastest PyTorch, "
            f"{entry.candidate}"
        )
    return "; ".join((*parts, *(f"skipped: {reason}" for reason in report.left_out)))


def gpu_load_parts(timings: Sequence[Timing]) -> list[str]:
    """Return the GPU's lowest clocks and highest power and temperature under load, as one text or none."""
    loads = [timing.gpu for timing in timings if timing.gpu]
    states = [state for load in loads for state in (load.before, load.after)]
    parts = []
    for name, unit, choose, found in (
        ("lowest SM clock", "MHz", min, [load.lowest_sm_clock_mhz for load in loads]),
        ("lowest memory clock", "MHz", min, [state.memory_clock_mhz for state in states]),
        ("highest power", "W", max, [state.power_watts for state in states]),
        ("highest temperature", "°C", max, [state.temperature_celsius for state in states]),
    ):
        values = [value for value in found if value is not None]
        if values:
            parts.append(f"{name} {choose(values):.0f} {unit}")
    return [f"GPU under load: {', '.join(parts)}"] if parts else []


def unreliable_line(reasons: Sequence[str]) -> str:
    """Return the warning of an unreliable run, or "" for a reliable one."""
    if not reasons:
        return ""
    return f"UNRELIABLE, no speed-ups: {'; '.join(reasons)}: measure again on an idle machine"


def summary_table(verification: VerificationReport, benchmark: BenchmarkReport) -> Table:
    """Return a row for each stage: parity, accuracy and speed-up of the target's engines.

    Both results are of the same engines: `evidence.joined_table` checks this first.
    """
    compared = ("engine", "pytorch")
    code = next(parity for parity in verification.codes if (parity.level, parity.against) == compared)
    logits = {
        parity.stage: parity for parity in verification.logits if (parity.level, parity.against) == compared
    }
    precisions = {engine.stage: engine.precision.upper() for engine in verification.engines}
    timings = {timing.subject: timing for timing in benchmark.timings if timing.is_target}
    chain = logits["chain"]
    top1 = {accuracy.chain: accuracy.top1_percent for accuracy in verification.accuracies}
    change = f"{top1['pytorch']:.1f} % → {top1['engine']:.1f} %" if top1 else ""
    found: tuple[tuple[Subject, str, str], ...] = (
        ("encoder", f"{code.equal_payloads} of {code.images} payloads equal", ""),
        ("classifier", f"cosine {logits['classifier'].min_cosine:.6f}", ""),
        ("chain", f"{chain.same_top1} of {chain.images} classes equal", change),
    )
    return Table(
        title=SUMMARY_TITLE,
        columns=SUMMARY_COLUMNS,
        rows=tuple(
            (stage, precisions.get(stage, ""), parity, accuracy, *_speed(timings.get(stage)))
            for stage, parity, accuracy in found
        ),
        note=f"{verification.image_count} images; target {verification.target}; "
        f"parity: {'all gates passed' if verification.passed else 'A GATE FAILED'}",
        warning=f"speed: {line}" if (line := unreliable_line(benchmark.unreliable_reasons)) else "",
    )


def speedup_cells(timing: Timing) -> tuple[str, str]:
    """Return a speed-up and its interval as cells; dashes if the run was unreliable."""
    if timing.speedup is None or timing.speedup_interval is None:
        return _NO_RESULT, _NO_RESULT
    return f"{timing.speedup:.2f}", interval_text(timing.speedup_interval, 2)


def _speed(timing: Timing | None) -> tuple[str, str, str]:
    if timing is None:
        return "", "", ""
    return f"{timing.latency_ms_p50:.2f}", *speedup_cells(timing)


def description_table(descriptions: Sequence[ModelDescription]) -> Table:
    """Return a row for each model: parameters, multiply-accumulates, size of the code."""
    trained = [
        f"{model.name} was trained with {named_iterations(model.trained_iterations)}; "
        for model in descriptions
        if model.trained_iterations is not None
    ]
    return Table.of(
        "Models",
        descriptions,
        [
            ("model", lambda model: model.name),
            ("image", lambda model: f"{model.image_height}x{model.image_width}"),
            ("T", lambda model: str(model.iterations)),
            ("cut", lambda model: model.cut or "none"),
            ("parameters", lambda model: f"{model.parameters:,}"),
            ("encoder GMAC", lambda model: number(model.encoder_macs_plain / 1e9, 3)),
            ("hoisted", lambda model: number(model.encoder_macs / 1e9, 3)),
            ("classifier GMAC", lambda model: number(model.classifier_macs / 1e9, 3)),
            ("code bytes", lambda model: str(model.code_bytes)),
            ("bits/pixel", lambda model: number(model.bits_per_pixel, 3)),
        ],
        note="".join(trained)
        + "GMAC: multiply-accumulates of one image over all T iterations; hoisted: computations that are the "
        "same in every iteration run once; the classifier of a baseline includes its decoder",
    )


def layer_table(model: ModelDescription) -> Table:
    """Return a row for each layer."""
    return Table.of(
        f"Layers of {model.name}",
        model.layers,
        [
            ("layer", lambda layer: layer.name),
            ("parameters", lambda layer: f"{layer.parameters:,}"),
            ("MMAC", lambda layer: f"{layer.macs / 1e6:,.1f}" if layer.macs else "–"),
        ],
        note="MMAC: millions of multiply-accumulates of one image over all T iterations, hoisted",
    )
