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
        ("cancelled_in_its_run", [[1], [2]], ["CancelledError", [2]], [0]),
        (
            "too_many_wait",
            [[1], [2, 2, 2, 2], [3, 3, 3, 5]],
            [[1], [2, 2, 2, 2], [3, 3, 3], "BusyError", [5]],
            [8, 0],
        ),
        ("closed_twice", [[1]], [[1], "ModelNotReady"], [0]),
        ("started_after_close", [], ["ModelNotReady"], [0]),
    ],
)
def test_requests_are_run_in_order_and_the_engine_is_closed_once(
    outcomes: dict[str, Any], case: str, runs: object, answers: object, waiting: object
) -> None:
    assert outcomes[case] == {"runs": runs, "answers": answers, "waiting": waiting, "closed": 1}


def test_a_queue_that_is_closed_before_its_start_never_loads_its_engine(outcomes: dict[str, Any]) -> None:
    assert outcomes["closed_before_start"] == {
        "runs": [],
        "answers": ["ModelNotReady"],
        "waiting": [0],
        "closed": 0,
    }
