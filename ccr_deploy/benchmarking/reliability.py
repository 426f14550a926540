"""Reliability of a benchmark: a pure function of its contention and its timings, with clocks and answers.

The limits come from runs on virtual machines with two cores. On idle ones (results in ``benchmarks/``), the
ends of a speed-up's interval differed by a factor of at most 1.45, and the 90th percentile was at most 1.76
times the median. With other work on 1.5 of the 2 cores, the factor reached 47 and the ratio 67, but both
stayed low for some engines. So the contention is checked too: one other busy process uses a whole core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.benchmarking.answers import wrong_answers
from ccr_deploy.benchmarking.timed_runs import fresh_input_ratios

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import AnswerCheck, Contention, Timing
    from ccr_deploy.core.metrics import Interval

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
MIN_CLOCK_RATIO = 0.95
"""Minimum ratio of the GPU's lowest SM clock under load to that after the warm-up."""
MIN_CPU_CLOCK_RATIO = 0.9
"""Minimum ratio of the CPU's clock in the last third of the rounds to that in the first.

The highest clock that a processor may have depends on how many of its cores are active, so that it varies by
some per cent without any throttling.
"""
MAX_FRESH_INPUT_RATIO = 1.1
"""Maximum lower end of the interval of the ratio of times on fresh inputs to times on a repeated one.

An engine that caches whole answers has a ratio of many times; 1.1 is one that saves a tenth of its work.
"""
MIN_INPUT_ROUNDS = 5
"""Minimum number of rounds to judge by: an honest engine's few rounds may all have a high ratio by chance.

Besides the interval, the ratios of all rounds but at most one must exceed the limit. If noise alone decides,
a round's ratio does so with a probability p of at most 1/2, and by the binomial distribution all of n rounds
but at most one with p^n + n (1 - p) p^(n - 1). With p = 1/2 that is 19 % for 5 rounds, 3.5 % for 8 and 0.05 %
for 15; with p = 1/10 it is 0.05 % for 5 rounds.
"""
THROTTLED = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)
"""Reasons that make a run unreliable whatever the clocks are.

A GPU with a low power limit reaches its cap under every load, so that ``sw_power_cap`` alone is no reason.
"""


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
    return (*reasons, *_spread(timings), *_clocks(timings), *_cpu_clocks(timings), *_answers(timings))


def unreliable_answers(
    name: str,
    answers: AnswerCheck | None,
    fresh_input_ratio: float | None,
    interval: Interval | None,
    of_rounds: Sequence[float],
) -> Iterator[str]:
    """Yield why engines may not have computed every answer, or computed wrong ones.

    Args:
        name: what ran.
        answers: the comparison of the answers of timed runs; None if they were not compared.
        fresh_input_ratio: median time on fresh inputs divided by that on repeated ones; None if unknown.
        interval: its 95 % interval.
        of_rounds: the same ratio of each round; none if unknown.
    """
    if answers and not answers.passed:
        yield wrong_answers(name, answers)
    if interval and interval.low > MAX_FRESH_INPUT_RATIO and _are_mostly_high(of_rounds):
        yield (
            f"{name}: may cache its answers: fresh inputs took {fresh_input_ratio:.2f} times as "
            f"long as a repeated one (95 % interval {interval.low:.2f} to {interval.high:.2f})"
        )


def _are_mostly_high(ratios: Sequence[float]) -> bool:
    """Return whether there are enough rounds, and the ratios of all but at most one exceed the limit."""
    high = sum(ratio > MAX_FRESH_INPUT_RATIO for ratio in ratios)
    return len(ratios) >= MIN_INPUT_ROUNDS and high >= len(ratios) - 1


def without_speedups(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """Return the timings without speed-ups, for an unreliable run."""
    return tuple(replace(timing, speedup=None, speedup_interval=None) for timing in timings)


def _withheld(threads: int, observed: Contention) -> Iterator[str]:
    limit = min(MAX_WITHHELD_SHARE, MAX_WITHHELD_CORES / threads)
    when = f"while the {observed.phase} was timed"
    if observed.phase == "start":
        limit, when = START_FACTOR * limit, "before the start"
    elif observed.phase == "fresh inputs":
        when = "while fresh inputs were timed"
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


def _cpu_clocks(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield the largest fall of the CPU's clock if it exceeds its limit."""
    falls = [
        (timing.cpu.last_clock_mhz / timing.cpu.first_clock_mhz, timing.cpu, timing)
        for timing in timings
        if timing.cpu and timing.cpu.first_clock_mhz
    ]
    if falls:
        ratio, load, timing = min(falls, key=lambda fall: fall[0])
        if ratio < MIN_CPU_CLOCK_RATIO:
            yield (
                f"the CPU's clock fell from {load.first_clock_mhz:.0f} to {load.last_clock_mhz:.0f} MHz "
                f"({timing.subject}: {timing.candidate})"
            )


def _answers(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield a line for each candidate whose answers were wrong, or that may cache them."""
    for timing in timings:
        yield from unreliable_answers(
            f"{timing.subject}: {timing.candidate}",
            timing.answers,
            timing.fresh_input_ratio,
            timing.fresh_input_ratio_interval,
            fresh_input_ratios(timing.samples_ms, timing.inputs),
        )


def _clocks(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield the largest fall of the GPU's clock if it exceeds its limit, and why the GPU was throttled."""
    falls = [
        (load.lowest_sm_clock_mhz / load.before.sm_clock_mhz, timing, load)
        for timing in timings
        if (load := timing.gpu) and load.before.sm_clock_mhz and load.lowest_sm_clock_mhz is not None
    ]
    if falls:
        ratio, timing, load = min(falls, key=lambda fall: fall[0])
        if ratio < MIN_CLOCK_RATIO:
            why = f" by {', '.join(load.throttle_reasons)}" if load.throttle_reasons else ""
            yield (
                f"the GPU's SM clock fell from {load.before.sm_clock_mhz} to {load.lowest_sm_clock_mhz} MHz"
                f"{why} ({timing.subject}: {timing.candidate})"
            )
    found = {
        reason: timing for timing in reversed(timings) if timing.gpu for reason in timing.gpu.throttle_reasons
    }
    if throttled := sorted(THROTTLED & found.keys()):
        first = found[throttled[0]]
        yield f"the GPU was throttled by {', '.join(throttled)} ({first.subject}: {first.candidate})"
