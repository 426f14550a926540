"""The reasons why a run is unreliable, for every kind of observation."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks.int8 import Int8Benchmark
from benchmarks.scaffold import read_result
from ccr_deploy.benchmarking.reliability import unreliable_reasons, without_speedups
from ccr_deploy.benchmarking.results import (
    AnswerCheck,
    BenchmarkReport,
    Contention,
    CpuLoad,
    GpuLoad,
    GpuState,
    Timing,
)
from ccr_deploy.core.metrics import Interval

QUIET = Contention("encoder", 12.0, 2, 0.02, 0.01, 0.0)
TIMING = Timing(
    subject="encoder",
    candidate="onnxruntime fp32",
    is_target=True,
    backend_version="1.24.4",
    runs=100,
    latency_ms_p50=10.0,
    latency_ms_p90=12.0,
    latency_ms_p99=30.0,
    latency_ms_mean=10.0,
    images_per_second=100.0,
    peak_memory_mib=100.0,
    speedup=2.5,
    speedup_interval=Interval(2.3, 2.8),
)


def test_a_quiet_machine_with_its_background_noise_is_reliable() -> None:
    start = replace(QUIET, phase="start", seconds=0.5, other_processes_cores=0.3)
    assert unreliable_reasons(2, [start, QUIET, replace(QUIET, phase="chain")], [TIMING]) == ()


@pytest.mark.parametrize("name", ["demo-benchmark", "cpu-ccr-layer1"])
def test_measurements_on_idle_machines_are_within_the_limits(name: str) -> None:
    report = read_result(name, BenchmarkReport)
    assert unreliable_reasons(report.threads, [], report.timings) == ()


def test_all_precisions_on_an_idle_machine_are_reliable() -> None:
    result = read_result("int8-ccr-layer1", Int8Benchmark)
    assert unreliable_reasons(2, [], result.timings) == ()


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (
            replace(QUIET, other_processes_cores=1.33),
            "other processes used 1.3 of 2 cores while the encoder was timed",
        ),
        (
            replace(QUIET, phase="start", other_processes_cores=1.0),
            "other processes used 1.0 of 2 cores before the start",
        ),
        (
            replace(QUIET, phase="fresh inputs", other_processes_cores=1.0),
            "other processes used 1.0 of 2 cores while fresh inputs were timed",
        ),
        (
            replace(QUIET, phase="chain", stolen_cores=0.42),
            "the hypervisor withheld 0.4 of 2 cores while the chain was timed",
        ),
        (
            replace(QUIET, phase="classifier", throttled_cores=0.6),
            "the container's CPU limit withheld 0.6 cores while the classifier was timed",
        ),
    ],
)
def test_each_way_to_lose_cores_is_a_reason_with_its_number(observed: Contention, reason: str) -> None:
    assert unreliable_reasons(2, [QUIET, observed], [TIMING]) == (reason,)


def test_every_reason_is_listed() -> None:
    worst = Contention("encoder", 12.0, 2, 1.0, 1.0, 1.0)
    scattered = replace(TIMING, latency_ms_p90=70.0, speedup_interval=Interval(53.75, 1794.39))
    assert len(unreliable_reasons(2, [worst], [scattered])) == 5


def test_just_before_the_start_twice_as_much_is_tolerated() -> None:
    for cores, reliable in ((0.39, True), (0.41, False)):
        start = replace(QUIET, phase="start", other_processes_cores=cores)
        assert (unreliable_reasons(2, [start]) == ()) is reliable
        assert unreliable_reasons(2, [replace(start, phase="encoder")])


@pytest.mark.parametrize(
    ("threads", "cores", "others", "reliable"),
    [
        (2, 2, 0.19, True),
        (2, 2, 0.21, False),
        (1, 2, 1.0, False),  # the second core may be the first one's sibling
        (1, 1, 0.09, True),
        (1, 1, 0.11, False),
        (4, 4, 1.0, False),
        (64, 64, 0.4, True),
        (64, 64, 1.0, False),  # 64 threads wait for the one that shares its core
        (2, 64, 3.0, True),  # two threads hardly ever meet them
        (2, 64, 30.0, False),
    ],
)
def test_the_contention_limit_depends_on_cores_and_threads(
    threads: int, cores: int, others: float, reliable: bool
) -> None:
    observed = replace(QUIET, cores=cores, other_processes_cores=others, stolen_cores=0.0)
    assert (unreliable_reasons(threads, [observed]) == ()) is reliable


def test_a_limit_that_stops_two_threads_on_a_large_machine_is_a_reason() -> None:
    observed = replace(QUIET, cores=64, other_processes_cores=0.0, throttled_cores=0.5)
    assert unreliable_reasons(2, [observed]) == (
        "the container's CPU limit withheld 0.5 cores while the encoder was timed",
    )


def test_an_unknown_counter_is_not_a_reason() -> None:
    assert unreliable_reasons(2, [Contention("encoder", 12.0, 2, None, None, None)], [TIMING]) == ()


def test_the_widest_interval_is_a_reason() -> None:
    wide = replace(TIMING, subject="chain", speedup_interval=Interval(53.75, 1794.39))
    wider = replace(TIMING, speedup_interval=Interval(1.0, 2.1))
    (reason,) = unreliable_reasons(2, [QUIET], [TIMING, wide, wider])
    assert reason == "a speed-up's 95 % interval spans a factor of 33.4 (chain: onnxruntime fp32)"
    assert unreliable_reasons(2, [QUIET], [replace(TIMING, speedup_interval=Interval(1.0, 1.9))]) == ()


def test_the_longest_tail_is_a_reason() -> None:
    (reason,) = unreliable_reasons(2, [QUIET], [TIMING, replace(TIMING, latency_ms_p90=31.2)])
    assert reason == "a tenth of the runs took more than 3.1 times the median (encoder: onnxruntime fp32)"
    assert unreliable_reasons(2, [QUIET], [replace(TIMING, latency_ms_p90=29.0)]) == ()


COOL = GpuState(1980, 2619, 300.0, 55)
STEADY = GpuLoad(COOL, COOL, 1980, ())


@pytest.mark.parametrize(
    "load",
    [
        None,  # no GPU, or a Jetson without NVML
        STEADY,
        replace(STEADY, lowest_sm_clock_mhz=1890),
        replace(STEADY, throttle_reasons=("sw_power_cap",)),  # a GPU with a low power limit, always
        replace(STEADY, lowest_sm_clock_mhz=None),
        GpuLoad(GpuState(None, None, None, None), COOL, 210, ()),
        GpuLoad(GpuState(0, None, None, None), COOL, 0, ()),
        GpuLoad(replace(COOL, sm_clock_mhz=1500), COOL, 1500, ()),  # rose
    ],
)
def test_steady_or_unknown_clocks_are_not_a_reason(load: GpuLoad | None) -> None:
    assert unreliable_reasons(2, [QUIET], [replace(TIMING, gpu=load)]) == ()


def test_a_clock_that_fell_is_a_reason_with_its_cause() -> None:
    fell = replace(STEADY, lowest_sm_clock_mhz=1870, throttle_reasons=("sw_power_cap",))
    (reason,) = unreliable_reasons(2, [QUIET], [TIMING, replace(TIMING, gpu=fell)])
    assert reason == (
        "the GPU's SM clock fell from 1980 to 1870 MHz by sw_power_cap (encoder: onnxruntime fp32)"
    )


def test_the_largest_fall_is_named() -> None:
    falls = [
        replace(TIMING, candidate=str(lowest), gpu=replace(STEADY, lowest_sm_clock_mhz=lowest))
        for lowest in (1800, 1410, 1700)
    ]
    (reason,) = unreliable_reasons(2, [QUIET], falls)
    assert reason == "the GPU's SM clock fell from 1980 to 1410 MHz (encoder: 1410)"


@pytest.mark.parametrize(
    "cause", ["hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"]
)
def test_a_throttled_gpu_is_a_reason_at_any_clock(cause: str) -> None:
    throttled = [
        replace(TIMING, candidate=name, gpu=replace(STEADY, throttle_reasons=("sw_power_cap", cause)))
        for name in ("first", "second")
    ]
    (reason,) = unreliable_reasons(2, [QUIET], [replace(TIMING, gpu=STEADY), *throttled])
    assert reason == f"the GPU was throttled by {cause} (encoder: first)"


def cpu(first: float, last: float) -> CpuLoad:
    return CpuLoad(first, last, round(min(first, last)))


@pytest.mark.parametrize("load", [None, cpu(3400, 3400), cpu(3400, 3100), cpu(2000, 3400), cpu(0, 0)])
def test_a_steady_rising_or_unknown_cpu_clock_is_not_a_reason(load: CpuLoad | None) -> None:
    assert unreliable_reasons(2, [QUIET], [replace(TIMING, cpu=load)]) == ()


def test_the_largest_fall_of_the_cpus_clock_is_a_reason() -> None:
    loads = [replace(TIMING, candidate=str(last), cpu=cpu(3400, last)) for last in (3000, 2200, 2900)]
    (reason,) = unreliable_reasons(2, [QUIET], loads)
    assert reason == "the CPU's clock fell from 3400 to 2200 MHz (encoder: 2200)"


def slower_on_fresh_inputs(*ratios: float) -> Timing:
    """Return a timing with a ratio of fresh to repeated inputs for each round."""
    return replace(
        TIMING,
        fresh_input_ratio=1.5,
        fresh_input_ratio_interval=Interval(1.2, 1.9),
        samples_ms=tuple((10.0, 10 * ratio) for ratio in ratios),
        inputs=("rf",) * len(ratios),
    )


@pytest.mark.parametrize("interval", [Interval(0.8, 1.3), Interval(1.02, 1.09), Interval(1.09, 9.0)])
def test_fresh_inputs_within_noise_are_not_a_reason(interval: Interval) -> None:
    timing = replace(slower_on_fresh_inputs(*[1.5] * 15), fresh_input_ratio_interval=interval)
    assert unreliable_reasons(2, [QUIET], [timing]) == ()


@pytest.mark.parametrize("ratios", [(1.5,) * 5, (1.5, 0.9, 1.2, 1.5, 1.5), (*[1.5] * 14, 1.0)])
def test_fresh_inputs_that_take_longer_in_all_rounds_but_one_are_a_reason(ratios: tuple[float, ...]) -> None:
    (reason,) = unreliable_reasons(2, [QUIET], [TIMING, slower_on_fresh_inputs(*ratios)])
    assert reason == (
        "encoder: onnxruntime fp32: may cache its answers: fresh inputs took 1.50 times as long as a "
        "repeated one (95 % interval 1.20 to 1.90)"
    )


@pytest.mark.parametrize("ratios", [(1.5, 1.05, 1.5, 1.5, 1.05), (*[1.5] * 13, 1.0, 1.09)])
def test_fresh_inputs_that_are_fast_in_two_rounds_are_not_a_reason(ratios: tuple[float, ...]) -> None:
    assert unreliable_reasons(2, [QUIET], [slower_on_fresh_inputs(*ratios)]) == ()


def test_fewer_than_five_rounds_are_not_judged() -> None:
    assert unreliable_reasons(2, [QUIET], [slower_on_fresh_inputs(*[9.0] * 4)]) == ()


def test_wrong_answers_are_a_reason() -> None:
    right = AnswerCheck(9, 3, 0, 0.0, None, 0.0, None, 0.1, None, passed=True)
    wrong = replace(right, flipped_percent=31.0, passed=False)
    assert unreliable_reasons(2, [QUIET], [replace(TIMING, answers=right)]) == ()
    (reason,) = unreliable_reasons(2, [QUIET], [replace(TIMING, answers=wrong)])
    assert reason.startswith("encoder: onnxruntime fp32: wrong answers while it was timed: 31 % of the bits")


def test_an_unreliable_runs_timings_keep_their_latencies_alone() -> None:
    (kept,) = without_speedups([TIMING])
    assert (kept.speedup, kept.speedup_interval) == (None, None)
    assert replace(kept, speedup=2.5, speedup_interval=Interval(2.3, 2.8)) == TIMING
