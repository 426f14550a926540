"""Whether a benchmark's numbers may be relied on: a pure function of what was observed.

The limits come from runs on virtual machines with two cores. On idle ones (the results in ``benchmarks/``) no
interval of a speed-up spanned more than a factor of 1.45, and no 90th percentile was more than 1.76 times its
median. Beside other work that took 1.5 of the 2 cores the factor reached 47 and the ratio 67, while some
engines showed neither: so both are looked at. One other process that computes takes a whole core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import Contention, Timing

MAX_WITHHELD_SHARE = 0.1
"""How much of the cores may be withheld on average."""
MAX_WITHHELD_CORES = 0.5
"""Of many cores no more than half of one: threads that wait for each other are as slow as the slowest."""
START_FACTOR = 2
"""Half a second before the start is disturbed more easily than a whole run."""
MAX_INTERVAL_FACTOR = 2.0
"""The upper end of a speed-up's 95 % interval over its lower end."""
MAX_TAIL_RATIO = 3.0
"""The 90th percentile over the median."""


def unreliable_reasons(
    threads: int, contention: Sequence[Contention], timings: Sequence[Timing] = ()
) -> tuple[str, ...]:
    """Return why a run is unreliable, in plain words; nothing if it is reliable.

    Args:
        threads: how many the engines compute with.
        contention: what was observed in each phase so far.
        timings: with their speed-ups; none before the start.
    """
    reasons = [reason for observed in contention for reason in _withheld(threads, observed)]
    return (*reasons, *_spread(timings))


def without_speedups(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """Return the timings of an unreliable run: latencies, and no speed-up that anybody could take for one."""
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
    """The worst of each kind."""
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
