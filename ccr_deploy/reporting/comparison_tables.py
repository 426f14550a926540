"""The tables of the comparison of two runs of `benchmark`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.reporting.table import Table, interval_text, significant

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.comparison_results import BenchmarkComparison, CandidateChange, Ratio

_ENGINES = {True: "same", False: "other", None: "?"}


def comparison_tables(comparison: BenchmarkComparison) -> list[Table]:
    """Return a table with a row for each candidate, and one of what else differs."""
    found = [_changes_table(comparison)]
    if comparison.differences:
        found.append(
            Table.of(
                "Other differences",
                comparison.differences,
                [
                    ("difference", lambda entry: entry.name),
                    ("A", lambda entry: entry.first),
                    ("B", lambda entry: entry.second),
                ],
            )
        )
    return found


def _changes_table(comparison: BenchmarkComparison) -> Table:
    return Table.of(
        "B compared with A",
        comparison.candidates,
        [
            ("candidate", _name),
            ("A p50 ms", lambda change: significant(change.first_latency_ms_p50)),
            ("B p50 ms", lambda change: significant(change.second_latency_ms_p50)),
            ("B / A", lambda change: f"{change.latency.ratio:.3f}"),
            ("95 % interval", lambda change: interval_text(change.latency.interval, 3)),
            ("relative", lambda change: f"{change.relative.ratio:.3f}"),
            ("95 % interval", lambda change: interval_text(change.relative.interval, 3)),
            ("engines", lambda change: _ENGINES[change.has_same_engines]),
            ("change", lambda change: change.change),
        ],
        note=_note(comparison),
        warning=f"not judged: {'; '.join(comparison.not_judged)}" if comparison.not_judged else "",
    )


def _name(change: CandidateChange) -> str:
    mark = " (target)" if change.is_target else ""
    return f"{change.subject}: {change.candidate}{mark}"


def _note(comparison: BenchmarkComparison) -> str:
    parts = [
        f"A: {comparison.first}; B: {comparison.second}",
        "B / A: ratio of the medians",
        "relative: the same, each divided by the median of its run's control",
    ]
    if comparison.controls:
        controls = [
            f"{control.subject}: {control.candidate} {_ratio(control.latency)}"
            for control in comparison.controls
        ]
        parts.append(f"B / A of the controls: {', '.join(controls)}")
    for name, candidates in (("A", comparison.only_in_first), ("B", comparison.only_in_second)):
        if candidates:
            parts.append(f"only in {name}: {', '.join(candidates)}")
    return "; ".join(parts)


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.ratio:.3f} ({interval_text(ratio.interval, 3)})"
