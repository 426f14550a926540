"""The sample of a run's answers."""

from __future__ import annotations

import numpy as np

from ccr_deploy.benchmarking.scenarios.answer_sample import KEPT_ROWS, KEPT_RUNS, AnswerSample


def code(number: int, rows: int = 1) -> np.ndarray:
    return np.full((rows, 4), number % 256, np.uint8)


def sample_of(runs: int) -> AnswerSample:
    sample = AnswerSample()
    for number in range(runs):
        sample.add([number], (code(number),))
    return sample


def test_all_answers_of_a_short_run_are_kept() -> None:
    found = sample_of(3).answers()
    assert [(answer.items, answer.runs) for answer in found] == [((0,), 1), ((1,), 1), ((2,), 1)]
    assert (found[2].outputs[0].array() == code(2)).all()
    assert sample_of(0).answers() == ()


def test_runs_of_every_part_of_a_long_run_are_kept() -> None:
    kept = [answer.items[0] for answer in sample_of(100 * KEPT_RUNS).answers()]
    assert len(kept) == KEPT_RUNS
    thirds = np.histogram(kept, bins=3, range=(0, 100 * KEPT_RUNS))[0]
    assert thirds.min() >= KEPT_RUNS // 6


def test_rows_of_a_large_batch_are_drawn_at_random_and_copied() -> None:
    sample = AnswerSample()
    rows = 10 * KEPT_ROWS
    batch = np.arange(rows, dtype=np.uint8)[:, None]
    for _ in range(KEPT_RUNS):
        sample.add(range(100, 100 + rows), (batch,))
    batch[:] = 255  # an engine may reuse its buffer
    answers = sample.answers()
    kept = {answer.items[0]: int(answer.outputs[0].array()[0, 0]) for answer in answers}
    assert kept == {item: item - 100 for item in kept}
    assert sum(answer.runs for answer in answers) == KEPT_RUNS * KEPT_ROWS
    assert len(kept) == len(answers) > 5 * KEPT_ROWS
