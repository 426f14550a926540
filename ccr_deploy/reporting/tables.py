"""Results as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.models.iterations import named_iterations
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ccr_deploy.benchmarking.results import BenchmarkReport, Timing
    from ccr_deploy.core.metrics import Interval
    from ccr_deploy.export.description import ModelDescription
    from ccr_deploy.verification.gates import Gate
    from ccr_deploy.verification.results import ChainAccuracy, CodeParity, LogitParity, VerificationReport

_NO_RESULT = "–"


def verification_tables(report: VerificationReport) -> list[Table]:
    """Parity, accuracy and gates."""
    tables = [
        Table(
            title="Parity with PyTorch",
            columns=(
                "stage",
                "images",
                "payloads equal",
                "bits flipped",
                "logits: largest difference",
                "smallest cosine",
                "same top-1",
            ),
            rows=(
                *(_code_row(parity) for parity in report.codes),
                *(_logit_row(parity) for parity in report.logits),
            ),
            note="graph: the ONNX graph, run node by node as written; engine: what the target runs; "
            "classifier: on PyTorch's codes; chain: on its own encoder's codes",
        )
    ]
    if report.accuracies:
        tables.append(
            Table(
                title="Accuracy",
                columns=("chain", "images", "top-1", "95 % interval", "top-5"),
                rows=tuple(_accuracy_row(accuracy) for accuracy in report.accuracies),
                note=f"interval bootstrapped over {report.accuracies[0].groups} groups of images",
            )
        )
    if report.calibration and report.calibration.accuracies:
        tables.append(accuracy_table(report.calibration))
    tables.append(
        Table(
            title="Gates",
            columns=("gate", "limit", "found", "verdict"),
            rows=tuple(
                (
                    f"{gate.level}: {gate.gate}",
                    f"{gate.limit:g}",
                    f"{gate.found:.6g}",
                    "pass" if gate.passed else "FAIL",
                )
                for gate in report.gates
            ),
        )
    )
    return tables


def gate_table(gates: Sequence[Gate[Any]]) -> Table:
    """One row a gate: what it holds, and its limit for each precision."""
    return Table(
        title="Gates",
        columns=("gate (`verify --gate NAME=LIMIT`)", *(row.label for row in PRECISIONS.values())),
        rows=tuple((f"`{gate.name}`: {gate.help}", *map(gate.limit_text, PRECISIONS)) for gate in gates),
    )


def benchmark_tables(report: BenchmarkReport) -> list[Table]:
    """One table of timings; a row for each competitor."""
    machine = report.machine
    has_gpu = any(timing.device_memory_mib is not None for timing in report.timings)
    return [
        Table(
            title=f"Speed, batch {report.batch}, {report.threads} threads"
            + (" (unreliable)" if report.unreliable_reasons else ""),
            columns=(
                "what",
                "p50 ms",
                "p90 ms",
                "p99 ms",
                "images/s",
                "peak MiB",
                *(["GPU MiB"] if has_gpu else []),
                "speed-up",
                "95 % interval",
            ),
            rows=tuple(_timing_row(timing, has_gpu) for timing in report.timings),
            note=f"{report.rounds} rounds in turn, a process each, on {machine.gpu or machine.processor}, "
            "speed-up: against PyTorch eager"
            + "".join(f"; left out: {reason}" for reason in report.left_out),
            warning=unreliable_line(report.unreliable_reasons),
        )
    ]


def unreliable_line(reasons: Sequence[str]) -> str:
    """Return what a table of an unreliable run says of it; nothing of a reliable one."""
    if not reasons:
        return ""
    return f"UNRELIABLE, no speed-up is given: {'; '.join(reasons)}: measure again on an idle machine"


def summary_table(verification: VerificationReport, benchmark: BenchmarkReport) -> Table:
    """One row a stage: parity, accuracy and speed-up of the target's engines."""
    code = next(parity for parity in verification.codes if parity.level == "engine")
    logits = {parity.stage: parity for parity in verification.logits if parity.level == "engine"}
    engines = {engine.stage: engine for engine in verification.engines}
    precision = {stage: engine.precision.upper() for stage, engine in engines.items()}
    timings = {timing.subject: timing for timing in benchmark.timings if timing.is_target}
    rows = [
        (
            "encoder",
            precision["encoder"],
            _share(code.equal_payloads, code.images, "payloads equal"),
            "",
            *_speed(timings.get("encoder")),
        ),
        (
            "classifier",
            precision["classifier"],
            f"cosine {_cosine(logits['classifier'].min_cosine)}",
            "",
            *_speed(timings.get("classifier")),
        ),
        (
            "chain",
            "",
            _share(logits["chain"].same_top1, logits["chain"].images, "answers equal"),
            _accuracy_change(verification.accuracies),
            *_speed(timings.get("chain")),
        ),
    ]
    return Table(
        title="Engines against PyTorch eager",
        columns=(
            "stage",
            "precision",
            "parity",
            "top-1: PyTorch → engine",
            "p50 ms",
            "speed-up",
            "95 % interval",
        ),
        rows=tuple(rows),
        note=f"{verification.image_count} images; target {verification.target}; "
        f"parity: {'every gate holds' if verification.passed else 'A GATE FAILED'}",
        warning=f"speed: {line}" if (line := unreliable_line(benchmark.unreliable_reasons)) else "",
    )


def _code_row(parity: CodeParity) -> tuple[str, ...]:
    flipped = f"{parity.flipped_bits} of {parity.bits}"
    return (f"encoder {parity.level}", str(parity.images), str(parity.equal_payloads), flipped, "", "", "")


def _logit_row(parity: LogitParity) -> tuple[str, ...]:
    return (
        f"{parity.stage} {parity.level}",
        str(parity.images),
        "",
        "",
        f"{parity.max_difference:.2g}",
        _cosine(parity.min_cosine),
        str(parity.same_top1),
    )


def _accuracy_row(accuracy: ChainAccuracy) -> tuple[str, ...]:
    interval = accuracy.top1_interval_percent
    return (
        accuracy.chain,
        str(accuracy.images),
        f"{accuracy.top1_percent:.1f} %",
        f"{interval.low:.1f} – {interval.high:.1f}",
        f"{accuracy.top5_percent:.1f} %",
    )


def _timing_row(timing: Timing, has_gpu: bool) -> tuple[str, ...]:
    held = timing.device_memory_mib
    return (
        f"{timing.subject}: {timing.competitor}",
        f"{timing.latency_ms_p50:.2f}",
        f"{timing.latency_ms_p90:.2f}",
        f"{timing.latency_ms_p99:.2f}",
        f"{timing.images_per_second:.1f}",
        f"{timing.peak_memory_mib:.0f}",
        *(["" if held is None else f"{held:.0f}"] if has_gpu else []),
        *speedup_cells(timing),
    )


def speedup_cells(timing: Timing) -> tuple[str, str]:
    """Return a speed-up and its interval as cells; dashes if the run was unreliable."""
    if timing.speedup is None or timing.speedup_interval is None:
        return _NO_RESULT, _NO_RESULT
    return f"{timing.speedup:.2f}", _interval(timing.speedup_interval)


def _speed(timing: Timing | None) -> tuple[str, str, str]:
    if timing is None:
        return "", "", ""
    return f"{timing.latency_ms_p50:.2f}", *speedup_cells(timing)


def _accuracy_change(accuracies: Sequence[ChainAccuracy]) -> str:
    top1 = {accuracy.chain: accuracy.top1_percent for accuracy in accuracies}
    return f"{top1['pytorch']:.1f} % → {top1['engine']:.1f} %" if top1 else ""


def _interval(interval: Interval) -> str:
    return f"{interval.low:.2f} – {interval.high:.2f}"


def _share(part: int, whole: int, what: str) -> str:
    return f"{part} of {whole} {what}"


def _cosine(value: float) -> str:
    return f"{value:.6f}"


def description_table(descriptions: Sequence[ModelDescription]) -> Table:
    """One row a model: parameters, work, size of the code."""
    trained = [
        f"{model.name} was trained with {named_iterations(model.trained_iterations)}; "
        for model in descriptions
        if model.trained_iterations is not None
    ]
    return Table(
        title="Models",
        columns=(
            "model",
            "image",
            "T",
            "cut",
            "parameters",
            "encoder GMAC",
            "hoisted",
            "classifier GMAC",
            "code bytes",
            "bits/pixel",
        ),
        rows=tuple(
            (
                model.name,
                f"{model.image_height}x{model.image_width}",
                str(model.iterations),
                model.cut or "none",
                f"{model.parameters:,}",
                _giga(model.encoder_macs_plain),
                _giga(model.encoder_macs),
                _giga(model.classifier_macs),
                str(model.code_bytes),
                f"{model.bits_per_pixel:.3f}",
            )
            for model in descriptions
        ),
        note="".join(trained)
        + "multiply-accumulates of one image over all T iterations; hoisted: what no iteration changes is "
        "computed once; a baseline's classifier includes its decoder",
    )


def layer_table(model: ModelDescription) -> Table:
    """One row a layer."""
    return Table(
        title=f"Layers of {model.name}",
        columns=("layer", "parameters", "MMAC"),
        rows=tuple(
            (layer.name, f"{layer.parameters:,}", f"{layer.macs / 1e6:,.1f}" if layer.macs else "–")
            for layer in model.layers
        ),
        note="millions of multiply-accumulates over all T iterations, hoisted",
    )


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3f}"
