"""The ratio of times on fresh inputs to times on repeated ones."""

from __future__ import annotations

import numpy as np
import pytest

from ccr_deploy.backends.runner import Arrays, Outputs, Runner, TensorSpec
from ccr_deploy.benchmarking.inputs import FRESH, REPEATED, InputSource, inputs_of_round
from ccr_deploy.benchmarking.timed_runs import (
    fresh_input_ratio,
    fresh_input_ratios,
    run_in_sequence,
    time_round,
)
from ccr_deploy.core.metrics import Interval
from ccr_deploy.errors import EngineError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def test_the_ratio_is_that_of_the_medians() -> None:
    ratio, interval = fresh_input_ratio([(10, 10, 30), (30, 30, 10)], ["rrf", "ffr"])
    assert (ratio, interval) == (3.0, Interval(3.0, 3.0))


def test_the_ratios_of_rounds_are_those_of_their_medians() -> None:
    samples = [(10, 10, 40, 5), (30, 30, 60, 10)]
    assert fresh_input_ratios(samples, ["rrff", "ffrr"]) == (22.5 / 10, 30 / 35)


@pytest.mark.parametrize("inputs", [[], ["r", "f"], ["rf", "rr"]])
def test_without_both_kinds_in_each_round_there_is_no_ratio(inputs: list[str]) -> None:
    samples = [(1, 2)] * len(inputs)
    assert fresh_input_ratio(samples, inputs) == (None, None)
    assert fresh_input_ratios(samples, inputs) == ()


def test_a_round_runs_each_input_once_and_returns_the_answers_for_the_repeated_one() -> None:
    seen: list[np.ndarray] = []

    def run(batch: np.ndarray) -> tuple[np.ndarray, ...]:
        seen.append(batch)
        return (batch[:, 0, 0],)

    source = InputSource(IMAGES, 2)
    times, repeated = time_round(run, source, inputs_of_round(1, 5), 1)
    assert (times.inputs, len(times.nanoseconds), len(seen)) == ("fffrr", 5, 5)
    assert [(outputs[0] == IMAGES[[1, 2], 0, 0]).all() for outputs in repeated] == [True, True]
    assert len({batch.tobytes() for batch in seen}) == 4
    assert {REPEATED, FRESH} == set(times.inputs)


class Adding(Runner):
    """Adds 1 to the items, and leaves the last ones out."""

    def __init__(self, left_out: int = 0) -> None:
        self.inputs = (TensorSpec("code", "uint8", (None, 2)),)
        self._left_out = left_out

    def _run(self, feeds: Arrays) -> Outputs:
        return {"code": feeds["code"][: len(feeds["code"]) - self._left_out] + np.uint8(1)}

    def _close(self) -> None:
        pass


def test_engines_run_on_the_outputs_of_the_ones_before() -> None:
    outputs = run_in_sequence([Adding(), Adding()], np.zeros((3, 2), np.uint8))
    assert [int(output.max()) for output in outputs] == [1, 2]


def test_an_engine_that_returns_other_items_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"^engine 2 of 2 returned 2 items for 3: run ccr-deploy verify$"):
        run_in_sequence([Adding(), Adding(left_out=1)], np.zeros((3, 2), np.uint8))
