"""MLPerf's early-stopping rule: how many queries prove a percentile of the latency with 99 % confidence.

Of n independent queries, the number over a latency L is binomially distributed. If L were the true p-th
percentile, t or fewer queries would be over it with the probability

    F(t; n, 1 - p) = sum over k = 0..t of C(n, k) (1 - p)^k p^(n - k).

If F < 1 - c, then L is at least the true percentile, with confidence c. MLCommons, "Early Stopping in MLPerf
Inference" and ``loadgen/early_stopping.cc`` of its repository ``inference``, which searches n for a given t;
here t is searched for a given n where that is asked.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.scenario_results import EarlyStopping

if TYPE_CHECKING:
    import numpy.typing as npt

CONFIDENCE = 0.99


def queries_needed(over: int, percentile: float) -> int:
    """Return the smallest number of queries that proves a percentile if `over` of them are over a latency.

    Args:
        over: number of queries over the latency.
        percentile: the percentile, 0..100.
    """

    def proves(queries: int) -> bool:
        return _at_most(over, queries, percentile)[-1] < 1 - CONFIDENCE

    enough = over + 1
    while not proves(enough):
        enough *= 2
    return bisect.bisect_left(range(enough + 1), True, lo=over + 1, key=proves)


def allowed_over(queries: int, percentile: float) -> int | None:
    """Return the largest number of queries over a latency that still proves a percentile.

    Args:
        queries: number of all queries.
        percentile: the percentile, 0..100.

    Returns:
        None if the number of queries proves nothing, even if none is over the latency.
    """
    expected = math.ceil(queries * (1 - percentile / 100))
    proven = np.flatnonzero(_at_most(min(expected, queries), queries, percentile) < 1 - CONFIDENCE)
    return int(proven[-1]) if len(proven) else None


def early_stopping(
    latencies_ms: npt.ArrayLike, percentile: float, bound_ms: float | None = None
) -> EarlyStopping:
    """Apply the rule to the latencies of a run.

    The estimate is the t-th highest latency, t the number of queries that may be over it: as in LoadGen, it
    is the lowest latency for which t - 1 others are discarded.

    Args:
        latencies_ms: latency of each query in ms, ``float [queries]``.
        percentile: the percentile, 0..100.
        bound_ms: longest latency that a query may have, in ms; None to estimate the percentile only.
    """
    ordered = np.sort(np.asarray(latencies_ms, dtype=np.float64))
    queries = len(ordered)
    allowed = allowed_over(queries, percentile) or 0
    over = None if bound_ms is None else int((ordered > bound_ms).sum())
    more = None if over is None else max(0, queries_needed(over, percentile) - queries)
    return EarlyStopping(
        percentile=percentile,
        confidence=CONFIDENCE,
        minimum_queries=queries_needed(1 if over is None else 0, percentile),
        satisfied=allowed > 0 if more is None else more == 0,
        discarded=max(0, allowed - 1),
        estimate_ms=float(ordered[queries - allowed]) if allowed else None,
        over_bound=over,
        more_queries=more,
    )


def _at_most(over: int, queries: int, percentile: float) -> npt.NDArray[np.float64]:
    """Return the probabilities F(0), …, F(over) of at most so many queries over the percentile."""
    exceeds = 1 - percentile / 100
    counts = np.arange(over)
    # The terms by their ratios and as logarithms: C(n, k) overflows and p^n underflows.
    steps = np.log(queries - counts) - np.log(counts + 1) + math.log(exceeds / (1 - exceeds))
    logarithms = queries * math.log1p(-exceeds) + np.concatenate([[0.0], np.cumsum(steps)])
    return np.cumsum(np.exp(logarithms))
