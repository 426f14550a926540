"""Accuracy and speed are joined only if both are of the same engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.reporting.evidence import joined_table, why_not_joined
from ccr_deploy.reporting.html import html
from ccr_deploy.reporting.results import Results
from tests.unit.reporting.test_tables import BENCHMARK, VERIFICATION

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import BenchmarkReport


def with_hashes(**hashes: tuple[str, ...]) -> BenchmarkReport:
    """Return the benchmark with other hashes of the target's engines, by subject."""
    timings = [
        replace(timing, engines_sha256=hashes.get(timing.subject, timing.engines_sha256))
        if timing.is_target
        else timing
        for timing in BENCHMARK.timings
    ]
    return replace(BENCHMARK, timings=tuple(timings))


SAME, OTHER = "ab" * 32, "cd" * 32


def test_the_same_engines_are_joined() -> None:
    assert why_not_joined(VERIFICATION, BENCHMARK) == ""
    assert joined_table(VERIFICATION, BENCHMARK).rows


@pytest.mark.parametrize(
    ("hashes", "stage"),
    [
        ({"encoder": (OTHER,)}, "encoder"),
        ({"chain": (SAME, OTHER)}, "classifier"),
        ({"chain": (OTHER, SAME)}, "encoder"),
    ],
)
def test_another_engine_is_named_with_both_hashes(hashes: dict[str, tuple[str, ...]], stage: str) -> None:
    assert why_not_joined(VERIFICATION, with_hashes(**hashes)) == (
        f"accuracy and speed are not joined: the {stage} engine that was verified has the SHA-256 "
        "abababababab…, the one that was timed cdcdcdcdcdcd…: run ccr-deploy verify and benchmark again"
    )


def test_a_benchmark_without_hashes_is_not_joined() -> None:
    line = why_not_joined(VERIFICATION, with_hashes(encoder=()))
    assert "the benchmark does not say which encoder engine was timed" in line


def test_an_engine_that_was_not_verified_is_not_joined() -> None:
    line = why_not_joined(replace(VERIFICATION, engines=VERIFICATION.engines[:1]), BENCHMARK)
    assert "the classifier engine that was timed (abababababab…) was not verified" in line


def test_other_candidates_do_not_matter() -> None:
    timings = [
        timing if timing.is_target else replace(timing, engines_sha256=(OTHER,))
        for timing in BENCHMARK.timings
    ]
    assert why_not_joined(VERIFICATION, replace(BENCHMARK, timings=tuple(timings))) == ""


def test_without_a_join_there_are_no_rows_and_no_figure_of_speed() -> None:
    benchmark = with_hashes(encoder=(OTHER,))
    table = joined_table(VERIFICATION, benchmark)
    assert (table.rows, table.warning) == ((), why_not_joined(VERIFICATION, benchmark))
    joined = html("report", Results(VERIFICATION, BENCHMARK))
    separate = html("report", Results(VERIFICATION, benchmark))
    assert "speed-up of the chain" in joined
    assert "speed-up of the chain" not in separate
    assert f"Warning: {table.warning}" in separate
    assert "Speed, batch 4, 2 threads" in separate  # each result by itself is still there
