"""The statistics of an interleaved benchmark, on synthetic samples."""

from dataclasses import replace

import numpy as np
import pytest

from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.benchmarking.interleaving import (
    Samples,
    fastest_pytorch,
    gpu_load,
    run_interleaved,
    timings,
)
from ccr_deploy.benchmarking.results import FastestPyTorch, GpuLoad, GpuState
from ccr_deploy.benchmarking.statistics import median_ratio_interval
from ccr_deploy.benchmarking.worker import Candidate
from ccr_deploy.core.metrics import Interval
from ccr_deploy.errors import EngineError


def moods(rounds: int, seed: int) -> np.ndarray:
    """Return how much slower the machine is in each round."""
    return np.random.default_rng(seed).lognormal(0, 0.3, size=(rounds, 1))


def samples(median: float, mood: np.ndarray, runs: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).lognormal(0, 0.05, size=(len(mood), runs))
    return median * mood * noise


def width(interval: Interval) -> float:
    return interval.high - interval.low


def entry(name: str, milliseconds: np.ndarray, *, is_target: bool = False) -> Samples:
    candidate = Candidate(name, is_target, OnnxRuntimeOptions(), ())
    return Samples(candidate, "1.20.0", milliseconds, peak_memory_mib=64.0)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_contains_the_true_ratio(ratio, seed):
    mood = moods(30, seed)
    interval = median_ratio_interval(
        samples(10, mood, 20, seed + 10), samples(10 / ratio, mood, 40, seed + 20)
    )
    assert interval.low < ratio < interval.high


def test_the_interval_excludes_ratios_that_are_clearly_wrong():
    mood = moods(30, 0)
    interval = median_ratio_interval(samples(10, mood, 20, 1), samples(4, mood, 20, 2))
    assert 2.0 < interval.low < interval.high < 3.0


def test_a_candidate_against_itself_is_exactly_one():
    taken = samples(10, moods(10, 0), 20, 1)
    assert median_ratio_interval(taken, taken) == Interval(1.0, 1.0)


def test_a_shared_slowdown_widens_the_interval_less_than_separate_ones():
    mood = moods(30, 0)
    reference = samples(10, mood, 20, 1)
    shared = median_ratio_interval(reference, samples(4, mood, 20, 2))
    own = median_ratio_interval(reference, samples(4, moods(30, 5), 20, 2))
    assert width(shared) < width(own) / 2


def test_runs_of_one_round_do_not_count_as_independent():
    mood, own_mood = moods(10, 0), moods(10, 1)
    few = median_ratio_interval(samples(10, mood, 5, 1), samples(4, own_mood, 5, 2))
    many = median_ratio_interval(samples(10, mood, 200, 1), samples(4, own_mood, 200, 2))
    assert width(many) > width(few) / 2  # independent runs would make it six times narrower


def test_the_interval_is_the_same_on_every_call():
    reference, other = samples(10, moods(10, 0), 20, 1), samples(4, moods(10, 0), 20, 2)
    assert median_ratio_interval(reference, other) == median_ratio_interval(reference, other)


def test_one_round_has_an_interval_without_width():
    assert median_ratio_interval(np.full((1, 5), 10.0), np.full((1, 3), 4.0)) == Interval(2.5, 2.5)


def test_percentiles_are_taken_over_all_raw_samples():
    milliseconds = np.arange(1.0, 101.0).reshape(4, 25)
    (timing,) = timings("encoder", [entry("only", milliseconds)], 1)
    assert timing.runs == 100
    assert (timing.latency_ms_p50, timing.latency_ms_mean) == (50.5, 50.5)
    assert (timing.latency_ms_p90, timing.latency_ms_p99) == pytest.approx((90.1, 99.01))


@pytest.mark.parametrize(("batch", "expected"), [(1, 100.0), (32, 3200.0)])
def test_throughput_counts_the_images_of_a_batch(batch, expected):
    (timing,) = timings("encoder", [entry("only", np.full((2, 3), 10.0))], batch)
    assert timing.images_per_second == pytest.approx(expected)


def test_speed_ups_are_over_the_first_candidate():
    first, second = timings(
        "chain", [entry("eager", np.full((2, 3), 10.0)), entry("engine", np.full((2, 5), 4.0))], 1
    )
    assert (first.speedup, first.speedup_interval) == (1.0, Interval(1.0, 1.0))
    assert (second.speedup, second.speedup_interval) == (2.5, Interval(2.5, 2.5))


def test_a_timing_names_its_subject_and_candidate():
    (timing,) = timings("chain", [entry("engine", np.ones((2, 3)), is_target=True)], 1)
    assert (timing.subject, timing.candidate, timing.is_target) == ("chain", "engine", True)
    assert (timing.backend_version, timing.peak_memory_mib) == ("1.20.0", 64.0)


def test_times_on_the_gpu_have_their_own_median():
    milliseconds = np.full((2, 3), 10.0)
    on_gpu = replace(entry("engine", milliseconds), device_milliseconds=(4.0, 1.0, 3.0, 2.0))
    on_cpu, timing = timings("chain", [entry("eager", milliseconds), on_gpu], 1)
    assert (timing.device_latency_ms_p50, timing.latency_ms_p50) == (2.5, 10.0)
    assert (on_cpu.device_latency_ms_p50, on_cpu.gpu) == (None, None)


def test_the_target_is_compared_with_the_fastest_form_of_pytorch():
    milliseconds = {"eager": 12.0, "graph": 6.0, "compiled": 8.0, "other engine": 1.0}
    taken = [entry(name, np.full((2, 3), time)) for name, time in milliseconds.items()]
    taken.append(entry("engine", np.full((2, 5), 4.0), is_target=True))
    found = fastest_pytorch("chain", taken, ("eager", "graph", "compiled"))
    assert found == FastestPyTorch("chain", "graph", 1.5, Interval(1.5, 1.5))
    assert fastest_pytorch("chain", taken, ("eager",)) is None


def test_the_load_of_a_gpu_has_first_last_and_lowest_and_all_reasons():
    states = (
        GpuState(1980, 2619, 300.0, 50, ("sw_power_cap",)),
        GpuState(None, 2619, None, 55, ("hw_slowdown", "sw_power_cap")),
        GpuState(1400, 2619, 350.0, 60, ()),
        GpuState(1900, 2619, 340.0, 58, ()),
    )
    load = GpuLoad(states[0], states[-1], 1400, ("sw_power_cap", "hw_slowdown"))
    assert gpu_load(states) == load
    assert gpu_load(states[1:2]).lowest_sm_clock_mhz is None
    assert gpu_load(()) is None


def test_an_optional_candidate_that_cannot_be_loaded_is_left_out(tmp_path):
    from ccr_deploy.benchmarking.worker import Candidate

    engines = ((tmp_path / "none.onnx", "fp32"),)
    optional = Candidate("ghost", False, OnnxRuntimeOptions(), engines, is_optional=True)
    run = run_interleaved("encoder", [optional], batch=1, rounds=2)
    assert run.samples == []
    (reason,) = run.left_out
    assert reason.startswith("ghost: ")
    with pytest.raises(EngineError, match="ghost: "):
        run_interleaved(
            "encoder", [Candidate("ghost", True, OnnxRuntimeOptions(), engines)], batch=1, rounds=2
        )


def test_a_candidate_whose_process_was_killed_is_named(tmp_path):
    from ccr_deploy.benchmarking.worker import Candidate, Worker

    missing = Candidate("ghost", True, OnnxRuntimeOptions(), ((tmp_path / "none.onnx", "fp32"),))
    with Worker(missing, 1) as worker:
        with pytest.raises(EngineError, match="ghost: "):
            worker.wait_until_loaded()
        worker._process.wait(timeout=30)
        with pytest.raises(EngineError, match="ghost: its process exited"):
            worker.run_round(1)
