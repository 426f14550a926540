"""Reliability of a benchmark: a pure function of its contention and timings.

The limits come from runs on virtual machines with two cores. On idle ones (results in ``benchmarks/``), the
ends of a speed-up's interval differed by a factor of at most 1.45, and the 90th percentile was at most 1.76
times the median. With other work on 1.5 of the 2 cores, the factor reached 47 and the ratio 67, but both
stayed low for some engines. So the contention is checked too: one other busy process uses a whole core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import Contention, Timing

MAX_WITHHELD_SHARE = 0.1
"""Maximum share of the cores that may be withheld on average."""
MAX_WITHHELD_CORES = 0.5
"""Maximum number of withheld cores on machines with many: all threads wait for the slowest one."""
START_FACTOR = 2
"""Factor on the limits before the start: half a second varies more than a whole run."""
MAX_INTERVAL_FACTOR = 2.0
"""Maximum ratio of the upper to the lower end of a speed-up's 95 % interval."""
MAX_TAIL_RATIO = 3.0
"""Maximum ratio of the 90th percentile to the median."""


def unreliable_reasons(
    threads: int, contention: Sequence[Contention], timings: Sequence[Timing] = ()
) -> tuple[str, ...]:
    """Return the reasons why a run is unreliable; none if it is reliable.

    Args:
        threads: number of threads of the engines.
        contention: contention of each phase so far.
        timings: timings with speed-ups; none before the start.
    """
    reasons = [reason for observed in contention for reason in _withheld(threads, observed)]
    return (*reasons, *_spread(timings))


def without_speedups(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """Return the timings without speed-ups, for an unreliable run."""
    return tuple(replace(timing, speedup=None, speedup_interval=None) for timing in timings)


def _withheld(threads: int, observed: Contention) -> Iterator[str]:
    limit = min(MAX_WITHHELD_SHARE, MAX_WITHHELD_CORES / threads)
    when = f"while the {observed.phase} was timed"
    if observed.phase == "start":
        limit, when = START_FACTOR * limit, "before the start"
    cores = observed.cores
    if (others := observed.other_processes_cores or 0) > limit * cores:
        yield f"other processes used {others:.1f} of {cores} cores {when}"
    if (stolen := observed.stolen_cores or 0) > limit * cores:
        yield f"the hypervisor withheld {stolen:.1f} of {cores} cores {when}"
    if (throttled := observed.throttled_cores or 0) > limit * threads:
        yield f"the container's CPU limit withheld {throttled:.1f} cores {when}"


def _spread(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield the largest interval factor and the largest tail ratio if they exceed their limits."""
    tails = {f"{t.subject}: {t.candidate}": t.latency_ms_p90 / t.latency_ms_p50 for t in timings}
    factors = {
        f"{t.subject}: {t.candidate}": t.speedup_interval.high / t.speedup_interval.low
        for t in timings
        if t.speedup_interval
    }
    if factors and (factor := max(factors.values())) > MAX_INTERVAL_FACTOR:
        name = max(factors, key=factors.__getitem__)
        yield f"a speed-up's 95 % interval spans a factor of {factor:.1f} ({name})"
    if tails and (ratio := max(tails.values())) > MAX_TAIL_RATIO:
        name = max(tails, key=tails.__getitem__)
        yield f"a tenth of the runs took more than {ratio:.1f} times the median ({name})"
