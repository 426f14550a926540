"""Lines on how a benchmark was measured: warm-up, compared answers, clocks and temperatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.results import BenchmarkReport, Environment


def method_parts(report: BenchmarkReport) -> list[str]:
    """Return parts of the note below the table of a benchmark; none for an older report."""
    return [*_answers(report), *_unsteady(report), *_environment(report)]


def _answers(report: BenchmarkReport) -> Iterator[str]:
    runs = sum(timing.answers.runs for timing in report.timings if timing.answers and timing.answers.passed)
    if runs:
        yield f"answers: those of {runs:,} timed runs compared with PyTorch's"
    varying = [
        f"{timing.subject}: {timing.candidate} ({check.varying_images} of {check.images} images)"
        for timing in report.timings
        if (check := timing.answers) and check.varying_images
    ]
    if varying:
        yield f"answers that differ between runs: {', '.join(varying)}"


def _unsteady(report: BenchmarkReport) -> Iterator[str]:
    names = [
        f"{timing.subject}: {timing.candidate}"
        for timing in report.timings
        if timing.warm_up and not timing.warm_up.is_steady
    ]
    if names:
        yield f"the rate was not steady at the end of the warm-up: {', '.join(names)}"


def _environment(report: BenchmarkReport) -> Iterator[str]:
    before, after = report.environment_before, report.environment_after
    if before and after:
        if before.highest_clock_mhz and after.highest_clock_mhz:
            yield f"CPU clock before and after: {before.highest_clock_mhz} and {after.highest_clock_mhz} MHz"
        if (first := _hottest(before)) is not None and (last := _hottest(after)) is not None:
            yield f"highest temperature before and after: {first:.0f} and {last:.0f} °C"


def _hottest(environment: Environment) -> float | None:
    return max(environment.temperatures_celsius.values(), default=None)
