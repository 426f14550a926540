"""What changed between two runs of `benchmark`, and whether it is more than noise.

Two runs are not interleaved with each other: the machine's state may change between them. PyTorch eager,
which both runs time, is the control. The judge is a candidate's latency relative to that of PyTorch eager in
the same run, because what slows down the whole machine cancels out. A change must also show in the
candidate's own latency, and be larger than the change of PyTorch eager: otherwise the control may have
changed instead of the candidate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy import CREATED_BY
from ccr_deploy.benchmarking.comparison_results import (
    SCHEMA_VERSION,
    BenchmarkComparison,
    CandidateChange,
    Control,
    Ratio,
)
from ccr_deploy.benchmarking.results import SCHEMA_VERSION as BENCHMARK_SCHEMA_VERSION
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.benchmarking.run_differences import (
    differences,
    label,
    reasons_not_to_judge,
    subjects,
    timings_by_name,
)
from ccr_deploy.benchmarking.statistics import Medians
from ccr_deploy.core.records import parse_versioned_json
from ccr_deploy.core.untrusted import MAX_RESULT_BYTES, MAX_RESULT_VALUES, read_bytes, reading
from ccr_deploy.errors import CcrDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ccr_deploy.benchmarking.comparison_results import Change
    from ccr_deploy.benchmarking.results import Timing

REMEDY = "give the benchmark.json that ccr-deploy benchmark --report DIR of this version wrote"


def read_run(path: Path) -> BenchmarkReport:
    """Read the result of `benchmark`, with its raw samples.

    Raises:
        CcrDeployError: if the file cannot be read, is not such a result, or its samples are damaged.
    """
    with reading(path, CcrDeployError, f": {REMEDY}"):
        text = read_bytes(path, MAX_RESULT_BYTES)
    report = parse_versioned_json(
        BenchmarkReport,
        text,
        path,
        version=BENCHMARK_SCHEMA_VERSION,
        error=CcrDeployError,
        remedy=REMEDY,
        max_values=MAX_RESULT_VALUES,
    )
    if not report.timings:
        raise CcrDeployError(f"{path}: has no timings: {REMEDY}")
    for timing in report.timings:
        lengths = {len(samples) for samples in timing.samples_ms}
        is_whole = len(timing.samples_ms) == report.rounds and len(lengths) == 1 and lengths != {0}
        if not is_whole or min(map(min, timing.samples_ms)) <= 0:
            name = label(timing.subject, timing.candidate)
            raise CcrDeployError(f"{path}: the samples of {name} are missing or damaged: {REMEDY}")
    return report


def compare_runs(
    first: BenchmarkReport,
    second: BenchmarkReport,
    *,
    names: tuple[str, str] = ("A", "B"),
    max_regression_percent: float | None = None,
) -> BenchmarkComparison:
    """Compare two runs by candidates of the same name, with intervals from their raw samples.

    Args:
        first: the run A, which B is compared with.
        second: the run B.
        names: what the two runs are called, usually their files.
        max_regression_percent: the largest accepted slow-down of the target's engines, in percent of their
            latency in A; None for no limit.
    """
    not_judged = reasons_not_to_judge(first, second, names)
    controls: list[Control] = []
    candidates: list[CandidateChange] = []
    for subject in subjects(second):
        before, after = timings_by_name(first, subject), timings_by_name(second, subject)
        if next(iter(after)) in before:
            control, changes = _changes(before, after, is_judged=not not_judged)
            controls.append(control)
            candidates += changes
    labels = [
        [label(timing.subject, timing.candidate) for timing in report.timings] for report in (first, second)
    ]
    failures: tuple[str, ...] = ()
    not_excluded: tuple[str, ...] = ()
    if max_regression_percent is not None:
        failures = not_judged or tuple(_failures(second, candidates, controls, max_regression_percent))
        not_excluded = () if not_judged else tuple(_not_excluded(candidates, max_regression_percent))
    return BenchmarkComparison(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        first=names[0],
        second=names[1],
        not_judged=not_judged,
        differences=differences(first, second),
        controls=tuple(controls),
        candidates=tuple(candidates),
        only_in_first=tuple(name for name in labels[0] if name not in labels[1]),
        only_in_second=tuple(name for name in labels[1] if name not in labels[0]),
        max_regression_percent=max_regression_percent,
        failures=failures,
        not_excluded=not_excluded,
    )


def _changes(
    before: dict[str, Timing], after: dict[str, Timing], *, is_judged: bool
) -> tuple[Control, list[CandidateChange]]:
    """Return the change of the control, and of each other candidate that both runs have."""
    medians = {
        name: (_medians(before[name], 0), _medians(after[name], 1)) for name in after if name in before
    }
    control = next(iter(medians))
    first, second = medians.pop(control)
    machine = _ratio(second / first)
    changes = []
    for name, (old, new) in medians.items():
        latency = _ratio(new / old)
        relative = _ratio((new / second) / (old / first))
        timing, hashes = after[name], (before[name].engines_sha256, after[name].engines_sha256)
        changes.append(
            CandidateChange(
                subject=timing.subject,
                candidate=name,
                is_target=timing.is_target,
                has_same_engines=hashes[0] == hashes[1] if all(hashes) else None,
                first_latency_ms_p50=old.median,
                second_latency_ms_p50=new.median,
                latency=latency,
                relative=relative,
                change=change_of(latency, relative, machine) if is_judged else "not judged",
            )
        )
    return Control(after[control].subject, control, machine), changes


def _medians(timing: Timing, seed: int) -> Medians:
    return Medians.of(np.array(timing.samples_ms), seed)


def _ratio(medians: Medians) -> Ratio:
    return Ratio(medians.median, medians.interval)


def change_of(latency: Ratio, relative: Ratio, control: Ratio) -> Change:
    """Return whether a candidate changed by more than noise.

    Args:
        latency: the change of its latency.
        relative: the change of its latency in units of the control's.
        control: the change of the control's latency.
    """
    if not relative.side:
        return "no change"
    is_larger = abs(math.log(relative.ratio)) > abs(math.log(control.ratio))
    if latency.side != relative.side or not is_larger:
        return "unclear"
    return "slower" if relative.side > 0 else "faster"


def _failures(
    second: BenchmarkReport,
    candidates: Sequence[CandidateChange],
    controls: Sequence[Control],
    max_percent: float,
) -> Iterator[str]:
    """Yield a line for each of the target's engines that regressed too much, or may have."""
    limit = 1 + max_percent / 100
    found = {(change.subject, change.candidate): change for change in candidates}
    by_subject = {control.subject: control for control in controls}
    for timing in second.timings:
        if not timing.is_target:
            continue
        name = label(timing.subject, timing.candidate)
        change = found.get((timing.subject, timing.candidate))
        if change is None:
            yield f"{name}: A did not time it"
        elif (low := change.relative.interval.low) > limit:
            control = by_subject[timing.subject]
            line = f"{name}: at least {_percent(low)} slower, more than {max_percent:g} %"
            if change.change != "slower" or change.latency.interval.low <= limit:
                line += (
                    f", relative to {control.candidate}, but that itself changed by "
                    f"{_percent(control.latency.ratio)}: measure both again"
                )
            yield line


def _not_excluded(candidates: Sequence[CandidateChange], max_percent: float) -> Iterator[str]:
    """Yield a line for each of the target's engines that may have regressed by more than the limit."""
    for change in candidates:
        interval = change.relative.interval
        if change.is_target and interval.low <= 1 + max_percent / 100 < interval.high:
            name = label(change.subject, change.candidate)
            yield f"{name}: up to {_percent(interval.high)} slower is possible: measure with more --rounds"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.1f} %"
