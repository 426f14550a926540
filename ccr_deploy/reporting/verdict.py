"""The verdict of a report: whether the gates passed, what did not, and the figures that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ccr_deploy.reporting.evidence import why_not_joined
from ccr_deploy.reporting.table import interval_text, number
from ccr_deploy.reporting.verification_tables import CAUSES, way_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.results import BenchmarkReport
    from ccr_deploy.verification.results import GateResult, VerificationReport


class Reason(NamedTuple):
    """Why the verdict is not a pass: what is wrong, and what that means."""

    what: str
    meaning: str


class Figure(NamedTuple):
    """A figure that sums up one side of a result."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The verdict of a verification."""

    passed: bool
    headline: str
    reasons: tuple[Reason, ...]

    @classmethod
    def of(cls, report: VerificationReport) -> Verdict:
        """Return the verdict; its reasons are failed gates, findings, and outputs with NaN or infinity."""
        failed = [result for result in report.gates if not result.passed]
        headline = f"{len(failed)} of {len(report.gates)} gates failed" if failed else "all gates passed"
        return cls(
            report.passed,
            f"Parity: {headline}.",
            (*_failed_gates(failed), *_findings(report), *_non_finite_outputs(report)),
        )


def _failed_gates(failed: list[GateResult]) -> Iterator[Reason]:
    """Return a reason for each gate, whatever the number of ways in which it failed."""
    for gate in dict.fromkeys(result.gate for result in failed):
        results = [result for result in failed if result.gate == gate]
        found = ", ".join(
            f"{way_label(result.level)} {result.found:.6g} (limit {_sign(result)} {result.limit:g})"
            for result in results
        )
        yield Reason(f"{gate}: {found}", f"protects from {results[0].protects_from}")


def _sign(result: GateResult) -> str:
    return "≤" if result.direction == "at most" else "≥"


def _findings(report: VerificationReport) -> Iterator[Reason]:
    for finding in report.findings:
        where = f"{way_label(finding.step)}, {finding.stage}"
        yield Reason(f"{where}: {CAUSES[finding.cause]}", finding.evidence)


def _non_finite_outputs(report: VerificationReport) -> Iterator[Reason]:
    for entry in report.non_finite:
        yield Reason(
            f"NaN or infinity: {entry.values} values of the {entry.output} of {way_label(entry.way)}",
            f"in {entry.images} of {report.image_count} images, first in {entry.first_image}",
        )


def key_figures(
    verification: VerificationReport | None, benchmark: BenchmarkReport | None
) -> tuple[Figure, ...]:
    """Return the figures of the target's engines: classes, bits and accuracy, then the chain's speed.

    There is no speed if other engines were timed than were verified.
    """
    found = [*_parity_figures(verification)] if verification else []
    if benchmark and not (verification and why_not_joined(verification, benchmark)):
        found += _speed_figures(benchmark)
    return tuple(found)


def _parity_figures(report: VerificationReport) -> Iterator[Figure]:
    for parity in report.logits:
        if (parity.stage, parity.level, parity.against) == ("chain", "engine", "pytorch"):
            share = number(100 * parity.same_top1 / parity.images, 1, " %")
            yield Figure("same class as PyTorch", share, f"{parity.same_top1} of {parity.images} images")
    for code in report.codes:
        if (code.level, code.against) == ("engine", "pytorch"):
            kind = {"none": "", "rounding": "near 0: rounding; ", "not rounding": "not only near 0; "}
            equal = f"{code.equal_payloads} of {code.images} payloads equal"
            yield Figure("flipped bits", f"{code.flipped_percent:.2g} %", f"{kind[code.flip_kind]}{equal}")
    top1 = {accuracy.chain: accuracy.top1_percent for accuracy in report.accuracies}
    for change in report.accuracy_changes:
        if change.level == "engine":
            loss = f"loss {number(change.top1_loss_points, 2)} points"
            interval = interval_text(change.top1_loss_interval_points, 2)
            detail = f"PyTorch {top1['pytorch']:.1f} %; {loss} ({interval})"
            yield Figure("top-1 accuracy", f"{top1['engine']:.1f} %", detail)


def _speed_figures(report: BenchmarkReport) -> Iterator[Figure]:
    for timing in report.timings:
        if timing.is_target and timing.subject == "chain":
            latency = f"{number(timing.latency_ms_p50, 2)} ms per batch of {report.batch}"
            if timing.speedup is None:
                yield Figure("latency of the chain", f"{number(timing.latency_ms_p50, 2)} ms", "unreliable")
            else:
                interval = interval_text(timing.speedup_interval, 2)
                yield Figure("speed-up of the chain", f"{timing.speedup:.1f}×", f"{interval}; {latency}")
