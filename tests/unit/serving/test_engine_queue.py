"""The queue of an engine: order, limits, cancelled requests and closing. The cases are in `queue_cases`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.queue_cases"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == ""  # no exception in a thread or in a callback of the event loop
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(
    ("case", "runs", "answers", "waiting"),
    [
        (
            "batched_in_order",
            [[1], [2, 3, 3], [4, 4, 4, 5]],
            [[1], [2], [3, 3], [4, 4, 4], [5]],
            [7, 4, 0],
        ),
        ("closed_while_postponed", [[1], [2, 2, 2], [3, 3]], [[1], [2, 2, 2], [3, 3]], [2, 0]),
        ("closed_before_it_is_postponed", [[1], [2, 2, 2], [3, 3]], [[1], [2, 2, 2], [3, 3]], [0]),
        ("postponed_and_cancelled", [[1], [2, 2, 2], [4]], [[1], [2, 2, 2], "CancelledError", [4]], [0, 0]),
        ("cancelled", [[1], [3, 3, 3, 3]], [[1], "CancelledError", [3, 3, 3, 3]], [8, 0]),
        ("only_cancelled_ones_are_left", [[1]], [[1], "CancelledError", "CancelledError"], [0]),
        ("cancelled_in_its_run", [[1], [2, 3]], [[1], "CancelledError", [3]], [0]),
        ("failed_run", [[1], [99, 2], [3]], [[1], "CancelledError", "InferenceError", [3]], [0]),
        (
            "too_many_wait",
            [[1], [2, 2, 2, 2], [3, 3, 3, 5]],
            [[1], [2, 2, 2, 2], [3, 3, 3], "BusyError", [5]],
            [8, 0],
        ),
        ("closed_twice", [[1]], [[1], "ModelNotReady"], [0]),
        ("closed_while_idle", [[1]], [[1]], [0]),
        ("sent_before_start", [[2]], ["ModelNotReady", [2]], [0]),
        ("sent_in_warm_up", [[2]], ["ModelNotReady", [2]], [0]),
    ],
)
def test_requests_are_run_in_order_and_the_engine_is_closed_once(
    outcomes: dict[str, Any], case: str, runs: object, answers: object, waiting: object
) -> None:
    assert outcomes[case] == {
        "runs": runs,
        "answers": answers,
        "waiting": waiting,
        "closed": 1,
        "warm_up_runs": 4,
    }


@pytest.mark.parametrize(
    ("case", "answers", "closed", "warm_up_runs"),
    [
        ("closed_before_start", ["ModelNotReady"], 0, 0),  # the engine is never loaded
        ("started_after_close", ["ModelNotReady"], 1, 0),
        ("start_cancelled", [], 1, 1),
    ],
)
def test_a_queue_that_closes_before_it_is_ready_ends_early(
    outcomes: dict[str, Any], case: str, answers: object, closed: int, warm_up_runs: int
) -> None:
    assert outcomes[case] == {
        "runs": [],
        "answers": answers,
        "waiting": [0],
        "closed": closed,
        "warm_up_runs": warm_up_runs,
    }
