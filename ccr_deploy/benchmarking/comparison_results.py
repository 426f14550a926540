"""The comparison of two runs of `benchmark`, as it is written to JSON."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.benchmarking.results import Subject
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record

SCHEMA_VERSION = 1

Change = Literal["slower", "faster", "unclear", "no change", "not judged"]
"""What happened to a candidate.

"unclear": it changed relative to PyTorch eager, but its own latency did not, or PyTorch eager changed by as
much.
"""


class Ratio(Record, frozen=True):
    """The median in B divided by the median in A, with its 95 % interval."""

    ratio: float
    interval: Interval

    @property
    def side(self) -> int:
        """1 if the interval is above 1, -1 if it is below, 0 if it contains 1."""
        return int(self.interval.low > 1) - int(self.interval.high < 1)


class Control(Record, frozen=True):
    """The first candidate of a subject, PyTorch eager, which shows how the machine's state changed."""

    subject: Subject
    candidate: str
    latency: Ratio


class CandidateChange(Record, frozen=True):
    """A candidate in both runs.

    `has_same_engines` is whether its engine files are equal; None if their hashes are not known. `latency` is
    the ratio of its latencies, `relative` that of its latencies in units of the control's of the same run.
    `is_target` marks the target's own engines in B.
    """

    subject: Subject
    candidate: str
    is_target: bool
    has_same_engines: bool | None
    first_latency_ms_p50: float
    second_latency_ms_p50: float
    latency: Ratio
    relative: Ratio
    change: Change


class Difference(Record, frozen=True):
    """Something else that differs between the runs."""

    name: str
    first: str
    second: str


class BenchmarkComparison(Record, frozen=True):
    """The comparison of the run B, `second`, with the run A, `first`.

    `not_judged` are the reasons why no change is judged; empty if changes are. `only_in_first` and
    `only_in_second` name candidates of one run. With a `max_regression_percent`, `failures` says which of the
    target's engines exceed it, or why that cannot be judged, and `not_excluded` for which of them the
    interval also contains regressions above the limit.
    """

    schema_version: int
    created_by: str
    first: str
    second: str
    not_judged: tuple[str, ...]
    differences: tuple[Difference, ...]
    controls: tuple[Control, ...]
    candidates: tuple[CandidateChange, ...]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    max_regression_percent: float | None = None
    failures: tuple[str, ...] = ()
    not_excluded: tuple[str, ...] = ()
