"""Comparisons of two runs, from planted samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.benchmarking.comparison import change_of, compare_runs, read_run
from ccr_deploy.benchmarking.comparison_results import Ratio
from ccr_deploy.benchmarking.results import Environment
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import to_json
from ccr_deploy.errors import CcrDeployError
from tests.support.benchmark_runs import EAGER, ENGINE, MEDIANS, machine_state, planted_run
from tests.support.results import verification_report

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.benchmarking.results import BenchmarkReport

RUN = planted_run(0)


def scaled(**factors: float) -> dict[str, float]:
    """Return the medians of eager and engine times factors."""
    return {
        EAGER: MEDIANS[EAGER] * factors.get("eager", 1),
        ENGINE: MEDIANS[ENGINE] * factors.get("engine", 1),
    }


def changes(first: BenchmarkReport, second: BenchmarkReport) -> list[str]:
    return [change.change for change in compare_runs(first, second).candidates]


def test_equal_runs_have_no_change_in_95_of_100_cases() -> None:
    found = [changes(planted_run(seed), planted_run(1000 + seed)) for seed in range(100)]
    assert sum("slower" in one or "faster" in one for one in found) <= 5


def test_a_drift_of_the_whole_machine_is_no_change_in_95_of_100_cases() -> None:
    medians = scaled(eager=1.08, engine=1.08)
    found = [changes(planted_run(seed), planted_run(1000 + seed, medians)) for seed in range(100)]
    assert sum("slower" in one or "faster" in one for one in found) <= 5


@pytest.mark.parametrize(("factor", "change"), [(1.05, "slower"), (0.95, "faster")])
def test_a_change_of_5_percent_is_found(factor: float, change: str) -> None:
    (found,) = compare_runs(RUN, planted_run(1, scaled(engine=factor))).candidates
    assert found.change == change
    assert found.latency.interval.low < factor < found.latency.interval.high
    assert found.relative.interval.low < factor < found.relative.interval.high


def ratio(value: float, half: float = 0.01) -> Ratio:
    return Ratio(value, Interval(value - half, value + half))


@pytest.mark.parametrize(
    ("latency", "relative", "control", "change"),
    [
        (1.05, 1.05, 1.0, "slower"),
        (0.95, 0.95, 1.0, "faster"),
        (1.005, 1.005, 1.0, "no change"),
        (1.08, 1.0, 1.08, "no change"),
        (1.0, 1.08, 0.93, "unclear"),
        (1.15, 1.05, 1.09, "unclear"),
        (0.98, 1.05, 0.93, "unclear"),
    ],
)
def test_a_change_shows_in_both_ratios_and_is_larger_than_the_control_s(
    latency: float, relative: float, control: float, change: str
) -> None:
    assert change_of(ratio(latency), ratio(relative), ratio(control)) == change


def test_a_regression_over_the_limit_fails() -> None:
    slower = planted_run(1, scaled(engine=1.2))
    (failure,) = compare_runs(RUN, slower, max_regression_percent=5).failures
    assert failure.startswith(f"chain: {ENGINE}: at least 1")
    assert failure.endswith("% slower, more than 5 %")
    assert compare_runs(RUN, slower, max_regression_percent=30).failures == ()
    assert compare_runs(RUN, slower).failures == ()


def test_only_the_target_s_engines_can_fail() -> None:
    slower = planted_run(1, scaled(engine=1.2))
    other = replace(slower, timings=tuple(replace(timing, is_target=False) for timing in slower.timings))
    assert compare_runs(RUN, other, max_regression_percent=5).failures == ()


def test_a_regression_that_only_the_control_shows_fails_with_the_reason() -> None:
    faster_control = planted_run(1, scaled(eager=0.8))
    (failure,) = compare_runs(RUN, faster_control, max_regression_percent=5).failures
    assert "relative to PyTorch eager, but that itself changed by -" in failure


def test_a_regression_that_the_interval_does_not_exclude_is_named() -> None:
    comparison = compare_runs(RUN, planted_run(1, scaled(engine=1.05)), max_regression_percent=5)
    assert comparison.failures == ()
    (line,) = comparison.not_excluded
    assert line.startswith(f"chain: {ENGINE}: up to ")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"machine": machine_state(processor="other CPU")},
            "different processor: a CPU in A, other CPU in B",
        ),
        ({"machine": machine_state(gpu="L4")}, "different gpu: none in A, L4 in B"),
        ({"threads": 4}, "different threads: 2 in A, 4 in B"),
        ({"batch": 8}, "different batch: 1 in A, 8 in B"),
        ({"model": "64x64"}, "different model: 224x224, T=8, cut layer1 in A, 64x64 in B"),
        ({"unreliable_reasons": ("busy",)}, "B is unreliable: busy"),
    ],
)
def test_what_is_not_comparable_is_not_judged_and_fails_a_limit(
    changed: dict[str, object], reason: str
) -> None:
    comparison = compare_runs(RUN, replace(RUN, **changed), max_regression_percent=5)
    assert comparison.not_judged == (reason,)
    assert comparison.failures == (reason,)
    assert [change.change for change in comparison.candidates] == ["not judged"]
    assert compare_runs(RUN, replace(RUN, **changed)).failures == ()


def test_other_instruction_sets_are_not_judged_and_another_affinity_is_listed() -> None:
    first, second = environment(), environment(instruction_sets=("avx2", "avx512_vnni"))
    with_vnni = compare_runs(replace(RUN, environment_before=first), replace(RUN, environment_before=second))
    assert with_vnni.not_judged == ("different instruction sets: avx2 in A, avx2 avx512_vnni in B",)
    moved = compare_runs(
        replace(RUN, environment_before=first), replace(RUN, environment_before=environment(affinity=(2, 3)))
    )
    assert moved.not_judged == ()
    assert [(entry.name, entry.first, entry.second) for entry in moved.differences] == [
        ("affinity", "0 1", "2 3")
    ]
    assert compare_runs(RUN, replace(RUN, environment_before=first)).differences == ()


def environment(**values: object) -> Environment:
    usual = {
        "affinity": (0, 1),
        "cpu_limit_cores": None,
        "memory_limit_mib": None,
        "instruction_sets": ("avx2",),
        "frequency_governors": (),
        "lowest_clock_mhz": None,
        "highest_clock_mhz": None,
        "temperatures_celsius": {},
        "versions": {},
    }
    return Environment(**{**usual, **values})


def test_another_version_of_the_control_is_not_judged() -> None:
    timings = (replace(RUN.timings[0], backend_version="2.0"), *RUN.timings[1:])
    comparison = compare_runs(RUN, replace(RUN, timings=timings))
    assert comparison.not_judged == ("different control, chain: PyTorch eager: 1.0 in A, 2.0 in B",)


def test_too_few_rounds_are_not_judged() -> None:
    short = replace(
        RUN, rounds=4, timings=tuple(replace(own, samples_ms=own.samples_ms[:4]) for own in RUN.timings)
    )
    assert compare_runs(RUN, short).not_judged == ("B has 4 rounds: at least 5 are needed",)


def test_other_differences_are_listed_but_judged() -> None:
    engine = replace(RUN.timings[1], backend_version="2.0", engines_sha256=("cd" * 32,))
    other = replace(RUN, weights_sha256="1" * 64, target="cpu-int8", timings=(RUN.timings[0], engine))
    comparison = compare_runs(RUN, other)
    assert [(entry.name, entry.second) for entry in comparison.differences] == [
        ("target", "cpu-int8"),
        ("weights sha256", "1" * 64),
        (f"library of chain: {ENGINE}", "2.0"),
    ]
    assert comparison.candidates[0].has_same_engines is False
    assert comparison.candidates[0].change == "no change"
    assert compare_runs(RUN, RUN).candidates[0].has_same_engines is True


def test_candidates_of_one_run_are_named() -> None:
    fewer = replace(RUN, timings=RUN.timings[:1])
    assert compare_runs(fewer, RUN).only_in_second == (f"chain: {ENGINE}",)
    assert compare_runs(RUN, fewer).only_in_first == (f"chain: {ENGINE}",)
    failures = compare_runs(fewer, RUN, max_regression_percent=5).failures
    assert failures == (f"chain: {ENGINE}: A did not time it",)


def test_a_result_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text(to_json(RUN), encoding="utf-8")
    assert read_run(path) == RUN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (to_json(verification_report()), "schema version 4 is not supported, expected 5"),
        (to_json(replace(RUN, schema_version=4)), "schema version 4 is not supported, expected 5"),
        (to_json(RUN)[:500], "not JSON, perhaps truncated"),
        (to_json(verification_report(schema_version=5)), "field model: missing|unknown field"),
        (to_json(replace(RUN, timings=())), "has no timings"),
        (to_json(replace(RUN, rounds=16)), "the samples of chain: PyTorch eager are missing or damaged"),
        (
            to_json(replace(RUN, timings=(replace(RUN.timings[0], samples_ms=()),))),
            "the samples of chain: PyTorch eager are missing or damaged",
        ),
    ],
)
def test_wrong_files_are_refused_with_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CcrDeployError, match=message) as refusal:
        read_run(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CcrDeployError, match="no such file: give the benchmark"):
        read_run(tmp_path / "A.json")
