"""Lines on how a benchmark was measured."""

from __future__ import annotations

from msgspec.structs import replace

from ccr_deploy.benchmarking.results import AnswerCheck, Environment, WarmUp
from ccr_deploy.reporting.method_lines import method_parts
from ccr_deploy.reporting.tables import benchmark_tables
from tests.unit.reporting.test_tables import BENCHMARK

ENVIRONMENT = Environment((0, 1), None, None, ("AVX2",), (), 3300, 3400, {"cpu": 41.2, "board": 30.0}, {})


def test_an_older_report_has_no_such_lines() -> None:
    assert method_parts(BENCHMARK) == []


def test_compared_answers_are_counted_and_unsteady_candidates_named() -> None:
    check = AnswerCheck(700, 8, 0, 0.0, None, 0.0, None, 0.1, None, passed=True)
    first, *others = BENCHMARK.timings
    timed = (
        replace(first, answers=check, warm_up=WarmUp(6, 2.1, False, 300.0)),
        *(replace(timing, answers=check, warm_up=WarmUp(6, 0.2, True, 20.0)) for timing in others),
    )
    assert method_parts(replace(BENCHMARK, timings=timed)) == [
        "answers: those of 2,100 timed runs compared with PyTorch's",
        "the rate was not steady at the end of the warm-up: encoder: PyTorch eager",
    ]


def test_candidates_whose_answers_vary_are_named() -> None:
    check = AnswerCheck(700, 8, 2, 0.0, None, 0.05, None, 0.1, None, passed=True)
    first, *others = BENCHMARK.timings
    timed = (first, replace(others[0], answers=check), *others[1:])
    name = f"{others[0].subject}: {others[0].candidate}"
    assert method_parts(replace(BENCHMARK, timings=timed)) == [
        "answers: those of 700 timed runs compared with PyTorch's",
        f"answers that differ between runs: {name} (2 of 8 images)",
    ]


def test_clocks_and_the_highest_temperature_are_shown_before_and_after() -> None:
    after = replace(ENVIRONMENT, highest_clock_mhz=2900, temperatures_celsius={"cpu": 88.8})
    report = replace(BENCHMARK, environment_before=ENVIRONMENT, environment_after=after)
    lines = [
        "CPU clock before and after: 3400 and 2900 MHz",
        "highest temperature before and after: 41 and 89 °C",
    ]
    assert method_parts(report) == lines
    assert all(line in benchmark_tables(report)[0].note for line in lines)


def test_sensors_that_a_machine_does_not_have_are_left_out() -> None:
    bare = replace(ENVIRONMENT, highest_clock_mhz=None, temperatures_celsius={})
    assert method_parts(replace(BENCHMARK, environment_before=bare, environment_after=bare)) == []


def test_times_without_copies_have_columns_of_their_own() -> None:
    timed = [
        replace(timing, latency_without_copies_ms_p50=1.5, device_latency_without_copies_ms_p50=1.25)
        for timing in BENCHMARK.timings
    ]
    (table,) = benchmark_tables(replace(BENCHMARK, timings=tuple(timed)))
    assert table.columns[4:6] == ("no copies", "GPU, no copies")
    assert {row[4:6] for row in table.rows} == {("1.50", "1.25")}
    assert "no copies: median of runs whose inputs and outputs stay on the GPU" in table.note
