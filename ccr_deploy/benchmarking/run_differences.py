"""What differs between two runs of `benchmark` besides latencies, and why they may not be comparable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.comparison_results import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.benchmarking.results import (
        BenchmarkReport,
        Environment,
        MachineState,
        Subject,
        Timing,
    )

MIN_ROUNDS = 5
"""With fewer rounds, the bootstrap's intervals are too narrow to judge a change."""

_SAME = ("model", "batch", "threads")
_SAME_OF_MACHINE = ("processor", "usable_cores", "gpu")
_SAME_OF_ENVIRONMENT = ("instruction_sets", "cpu_limit_cores")
"""Fields without whose equality latencies are not compared."""
_SHOWN = ("created_by", "target", "weights_sha256", "contract_id", "rounds")
_SHOWN_OF_MACHINE = ("memory_gib", "operating_system", "python", "frequency_governor", "gpu_driver")
_SHOWN_OF_ENVIRONMENT = ("affinity", "memory_limit_mib")


def label(subject: Subject, candidate: str) -> str:
    """Return the name of a candidate with its subject."""
    return f"{subject}: {candidate}"


def timings_by_name(report: BenchmarkReport, subject: Subject) -> dict[str, Timing]:
    """Return the timings of a subject by their candidates; the first one is the control."""
    return {timing.candidate: timing for timing in report.timings if timing.subject == subject}


def subjects(report: BenchmarkReport) -> list[Subject]:
    """Return the subjects of a run, in their order."""
    return list(dict.fromkeys(timing.subject for timing in report.timings))


def reasons_not_to_judge(
    first: BenchmarkReport, second: BenchmarkReport, names: tuple[str, str]
) -> tuple[str, ...]:
    """Return why a change between two runs cannot be judged; none if it can be.

    Args:
        first: the run A.
        second: the run B.
        names: what the two runs are called.
    """
    other_conditions = (
        *_different_fields(first, second, _SAME),
        *_different_fields(first.machine, second.machine, _SAME_OF_MACHINE),
        *_different_environments(first, second, _SAME_OF_ENVIRONMENT),
    )
    return (
        *(f"different {entry.name}: {entry.first} in A, {entry.second} in B" for entry in other_conditions),
        *_other_controls(first, second),
        *_unsound(first, names[0]),
        *_unsound(second, names[1]),
    )


def differences(first: BenchmarkReport, second: BenchmarkReport) -> tuple[Difference, ...]:
    """Return what differs besides latencies: conditions, machine, weights and versions of libraries."""
    return (
        *_different_fields(first, second, (*_SAME, *_SHOWN)),
        *_different_fields(first.machine, second.machine, (*_SAME_OF_MACHINE, *_SHOWN_OF_MACHINE)),
        *_different_environments(first, second, (*_SAME_OF_ENVIRONMENT, *_SHOWN_OF_ENVIRONMENT)),
        *_different_versions(first, second),
    )


def _other_controls(first: BenchmarkReport, second: BenchmarkReport) -> Iterator[str]:
    """Yield a line for each subject whose control is not the same in both runs."""
    for subject in subjects(second):
        before = timings_by_name(first, subject)
        name, control = next(iter(timings_by_name(second, subject).items()))
        if name not in before:
            yield f"A did not time {label(subject, name)}, the control"
        elif (old := before[name].backend_version) != control.backend_version:
            yield f"different control, {label(subject, name)}: {old} in A, {control.backend_version} in B"


def _unsound(report: BenchmarkReport, name: str) -> Iterator[str]:
    if report.unreliable_reasons:
        yield f"{name} is unreliable: {'; '.join(report.unreliable_reasons)}"
    if report.rounds < MIN_ROUNDS:
        yield f"{name} has {report.rounds} rounds: at least {MIN_ROUNDS} are needed"


def _different_fields(
    first: BenchmarkReport | MachineState | Environment,
    second: BenchmarkReport | MachineState | Environment,
    names: tuple[str, ...],
) -> Iterator[Difference]:
    for name in names:
        values = getattr(first, name), getattr(second, name)
        if values[0] != values[1]:
            one, other = map(_text, values)
            yield Difference(name.replace("_", " "), one, other)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _different_environments(
    first: BenchmarkReport, second: BenchmarkReport, names: tuple[str, ...]
) -> Iterator[Difference]:
    """Yield differences before the start; none if one of the reports does not say what it was."""
    if first.environment_before and second.environment_before:
        yield from _different_fields(first.environment_before, second.environment_before, names)


def _different_versions(first: BenchmarkReport, second: BenchmarkReport) -> Iterator[Difference]:
    """Yield one difference for each pair of versions, with the first candidate that has it."""
    before = {label(timing.subject, timing.candidate): timing.backend_version for timing in first.timings}
    found: dict[tuple[str, str], list[str]] = {}
    for timing in second.timings:
        name, new = label(timing.subject, timing.candidate), timing.backend_version
        if before.get(name, new) != new:
            found.setdefault((before[name], new), []).append(name)
    for (old, new), labels in found.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield Difference(f"library of {labels[0]}{more}", old, new)
