"""MLPerf's early-stopping rule, against numbers that LoadGen printed and against the exact distribution."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest

from ccr_deploy.benchmarking.scenarios.early_stopping import (
    allowed_over,
    early_stopping,
    queries_needed,
)


@pytest.mark.parametrize(
    ("percentile", "over", "queries"),
    [(90, 1, 64), (95, 1, 130), (97, 1, 219), (99, 1, 662), (99.9, 1, 6636), (99, 0, 459), (99, 5, 1307)],
)
def test_the_least_number_of_queries_is_loadgens(percentile: float, over: int, queries: int) -> None:
    assert queries_needed(over, percentile) == queries


@pytest.mark.parametrize(
    ("queries", "discarded"), [(64, 0), (415, 26), (457, 29), (2048, 172), (2116, 178), (7469, 685)]
)
def test_as_many_queries_are_discarded_as_by_loadgen(queries: int, discarded: int) -> None:
    rule = early_stopping(np.arange(queries), 90)
    assert rule.satisfied
    assert rule.discarded == discarded
    # Above the estimate are exactly the discarded latencies.
    assert rule.estimate_ms == queries - 1 - discarded


@pytest.mark.parametrize("percentile", [50, 90, 99])
@pytest.mark.parametrize("queries", [10, 100, 700])
def test_the_allowed_number_is_the_largest_that_the_distribution_proves(
    percentile: int, queries: int
) -> None:
    chance = Fraction(100 - percentile, 100)
    terms = (
        math.comb(queries, count) * chance**count * (1 - chance) ** (queries - count)
        for count in range(queries)
    )
    proven = [over for over, at_most in enumerate(accumulate(terms)) if at_most < Fraction(1, 100)]
    assert allowed_over(queries, percentile) == (max(proven) if proven else None)


@pytest.mark.parametrize("over", [0, 1, 7, 40])
def test_both_directions_of_the_rule_agree(over: int) -> None:
    queries = queries_needed(over, 97)
    assert allowed_over(queries, 97) == over
    assert allowed_over(queries - 1, 97) in {over - 1, None}


def test_too_few_queries_prove_nothing() -> None:
    rule = early_stopping(np.arange(63), 90)
    assert (rule.satisfied, rule.estimate_ms, rule.discarded) == (False, None, 0)
    assert rule.minimum_queries == 64


def test_a_bound_counts_the_queries_over_it() -> None:
    rule = early_stopping([10.0] * 456 + [30.0], 99, bound_ms=20)
    assert (rule.over_bound, rule.more_queries, rule.satisfied) == (1, 662 - 457, False)
    met = early_stopping([10.0] * 661 + [30.0], 99, bound_ms=20)
    assert (met.over_bound, met.more_queries, met.satisfied) == (1, 0, True)


def test_a_latency_at_the_bound_is_not_over_it() -> None:
    assert early_stopping([20.0] * 459, 99, bound_ms=20).satisfied


def test_millions_of_queries_neither_overflow_nor_underflow() -> None:
    allowed = allowed_over(3_000_000, 99)
    assert allowed
    assert 29_500 < allowed < 30_000


def test_the_rule_is_wrong_in_about_one_of_a_hundred_runs() -> None:
    generator = np.random.default_rng(7)
    truth = -math.log(1 - 0.9)  # the 90th percentile of an exponential distribution
    runs = [early_stopping(generator.exponential(size=300), 90).estimate_ms for _ in range(2000)]
    wrong = sum(estimate is None or estimate < truth for estimate in runs)
    assert wrong <= 35  # of 20 that are expected
