"""Tables of results and of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.models.iterations import named_iterations
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.table import Table, interval_text, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ccr_deploy.benchmarking.results import BenchmarkReport, Subject, Timing
    from ccr_deploy.export.description import ModelDescription
    from ccr_deploy.verification.devices import DeviceResult
    from ccr_deploy.verification.gates import Gate
    from ccr_deploy.verification.results import CodeParity, LogitParity, VerificationReport

_NO_RESULT = "–"
SHOWN_IMAGES = 10


def verification_tables(report: VerificationReport) -> list[Table]:
    """Return the tables of a verification: parity, accuracy and gates."""
    tables = [
        Table(
            title="Parity with PyTorch" + (", recorded in a golden file" if report.golden else ""),
            columns=(
                "stage",
                "images",
                "payloads equal",
                "bits flipped",
                "max logit difference",
                "min cosine",
                "same top-1",
            ),
            rows=(*map(_code_row, report.codes), *map(_logit_row, report.logits)),
            note="graph: the ONNX graph, run node by node, not optimized; engine: the target's engine; "
            "classifier: reads PyTorch's codes; chain: reads the codes of its own encoder",
        )
    ]
    if report.accuracies:
        tables.append(
            Table.of(
                "Accuracy",
                report.accuracies,
                [
                    ("chain", lambda accuracy: accuracy.chain),
                    ("images", lambda accuracy: str(accuracy.images)),
                    ("top-1", lambda accuracy: number(accuracy.top1_percent, 1, " %")),
                    ("95 % interval", lambda accuracy: interval_text(accuracy.top1_interval_percent, 1)),
                    ("top-5", lambda accuracy: number(accuracy.top5_percent, 1, " %")),
                ],
                note=f"95 % intervals are bootstrapped over {report.accuracies[0].groups} groups of images",
            )
        )
    if report.calibration and report.calibration.accuracies:
        tables.append(accuracy_table(report.calibration))
    gates = Table.of(
        "Gates",
        report.gates,
        [
            ("gate", lambda gate: f"{gate.level}: {gate.gate}"),
            ("limit", lambda gate: f"{gate.limit:g}"),
            ("value", lambda gate: f"{gate.found:.6g}"),
            ("result", lambda gate: "pass" if gate.passed else "FAIL"),
        ],
    )
    return [*tables, gates]


def gate_table(gates: Sequence[Gate[Any]]) -> Table:
    """Return a row for each gate: its name, its limit for each precision, and its description."""
    return Table(
        title="Gates",
        columns=("gate", *(row.label for row in PRECISIONS.values()), "meaning"),
        rows=tuple((gate.name, *map(gate.limit_text, PRECISIONS), gate.help) for gate in gates),
        note="Change a limit with ccr-deploy verify --gate NAME=LIMIT",
    )


def benchmark_tables(report: BenchmarkReport) -> list[Table]:
    """Return one table of timings with a row for each candidate."""
    machine = report.machine
    has_gpu = any(timing.device_memory_mib is not None for timing in report.timings)
    columns: list[tuple[str, Callable[[Timing], str]]] = [
        ("candidate", lambda timing: f"{timing.subject}: {timing.candidate}"),
        ("p50 ms", lambda timing: number(timing.latency_ms_p50, 2)),
        ("p90 ms", lambda timing: number(timing.latency_ms_p90, 2)),
        ("p99 ms", lambda timing: number(timing.latency_ms_p99, 2)),
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
            [column for column in columns if has_gpu or column[0] != "GPU MiB"],
            note=f"{report.rounds} interleaved rounds, each candidate in its own process, on "
            f"{machine.gpu or machine.processor}; speed-up: over PyTorch eager"
            + "".join(f"; skipped: {reason}" for reason in report.left_out),
            warning=unreliable_line(report.unreliable_reasons),
        )
    ]


def unreliable_line(reasons: Sequence[str]) -> str:
    """Return the warning of an unreliable run, or "" for a reliable one."""
    if not reasons:
        return ""
    return f"UNRELIABLE, no speed-ups: {'; '.join(reasons)}: measure again on an idle machine"


def summary_table(verification: VerificationReport, benchmark: BenchmarkReport) -> Table:
    """Return a row for each stage: parity, accuracy and speed-up of the target's engines."""
    code = next(parity for parity in verification.codes if parity.level == "engine")
    logits = {parity.stage: parity for parity in verification.logits if parity.level == "engine"}
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
        title="Engines compared with PyTorch eager",
        columns=(
            "stage",
            "precision",
            "parity",
            "top-1: PyTorch → engine",
            "p50 ms",
            "speed-up",
            "95 % interval",
        ),
        rows=tuple(
            (stage, precisions.get(stage, ""), parity, accuracy, *_speed(timings.get(stage)))
            for stage, parity, accuracy in found
        ),
        note=f"{verification.image_count} images; target {verification.target}; "
        f"parity: {'all gates passed' if verification.passed else 'A GATE FAILED'}",
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
        f"{parity.min_cosine:.6f}",
        str(parity.same_top1),
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


def devices_table(devices: Sequence[DeviceResult]) -> Table:
    """Return one row per device: its agreement with the first on the same golden file."""
    others = [f"{device.path}: {name}" for device in devices for name in device.other_class]
    return Table.of(
        "Agreement of devices",
        devices,
        [
            ("result", lambda device: str(device.path)),
            ("target", lambda device: device.target),
            ("engines", lambda device: device.engines),
            ("payloads equal", lambda device: f"{device.equal_payloads} of {device.images}"),
            ("classes equal", lambda device: f"{device.same_top1} of {device.images}"),
            ("max probability difference", lambda device: f"{device.max_probability_difference:.2g}"),
            ("gates", lambda device: "pass" if device.passed else "FAIL"),
        ],
        note=f"compared with {devices[0].path}"
        + (f"; other class: {', '.join(others[:SHOWN_IMAGES])}" if others else "")
        + (f" and {len(others) - SHOWN_IMAGES} more" if len(others) > SHOWN_IMAGES else ""),
    )
