"""Interleaved rounds of one cell: every round runs each candidate, in rotating order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.results import PeerTiming
from ccr_deploy.benchmarking.interleaving import SETTLING_SECONDS, speedup_interval
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from benchmarks.peers.process import PeerProcess
    from benchmarks.peers.results import Cell
    from ccr_deploy.core.progress import Progress

FEWEST_ROUNDS = 3
RUNS_PER_ROUND = 10
"""The largest number of runs of a fast candidate in a round."""
RUN_TARGET_SECONDS = 0.15
"""How long the runs of a fast candidate in a round take together."""

Samples = list[tuple[float, ...]]
"""The milliseconds of each run, one tuple for each round."""


def runs_in_a_round(milliseconds: float) -> int:
    """Return the number of runs of a candidate in a round, from the time of one."""
    return int(np.clip(round(RUN_TARGET_SECONDS * 1000 / milliseconds), 1, RUNS_PER_ROUND))


def affordable_rounds(seconds: float, round_seconds: float, most: int) -> int:
    """Return the number of rounds that fit into a time: at least `FEWEST_ROUNDS`.

    Args:
        seconds: the time for the cell.
        round_seconds: the time of one round.
        most: the largest number of rounds.
    """
    return max(min(FEWEST_ROUNDS, most), min(most, int(seconds / round_seconds)))


def measure(
    processes: Sequence[PeerProcess], cell: Cell, seconds: float, most_rounds: int, progress: Progress
) -> list[Samples]:
    """Time the candidates of one cell, each in its own process.

    Args:
        processes: the candidates' processes, which have run this batch size once.
        cell: what runs.
        seconds: the time for the cell.
        most_rounds: the largest number of rounds.
        progress: advances by one for each round.

    Returns:
        The samples of each candidate.
    """
    runs = [runs_in_a_round(min(process.round(cell.batch, 1))) for process in processes]
    samples: list[Samples] = [[] for _ in processes]

    def run_round(number: int) -> None:
        for offset in range(len(processes)):
            index = (number + offset) % len(processes)
            time.sleep(SETTLING_SECONDS)  # threads of the library timed before spin for some milliseconds
            samples[index].append(processes[index].round(cell.batch, runs[index]))

    started = time.monotonic()
    run_round(0)
    took = time.monotonic() - started
    rounds = affordable_rounds(seconds, took, most_rounds)
    with progress.task(f"timing: {cell}", rounds) as advance:
        advance(1)
        for number in range(1, rounds):
            run_round(number)
            advance(1)
    return samples


def cell_timings(
    cell: Cell,
    processes: Sequence[PeerProcess],
    samples: Sequence[Samples],
    answers: Mapping[str, npt.NDArray[np.generic]],
) -> list[PeerTiming]:
    """Return the results of one cell; the first candidate is the one that others are compared with.

    Args:
        cell: what ran.
        processes: the candidates' processes.
        samples: the samples of each candidate.
        answers: the output of each candidate by name: packed codes ``[N, bytes]``, or logits.
    """
    reference = np.array([np.median(own) for own in samples[0]])[:, None]
    expected = answers[processes[0].candidate.name]
    found = []
    for process, own in zip(processes, samples, strict=True):
        candidate, answer = process.candidate, answers[process.candidate.name]
        medians = np.array([np.median(runs) for runs in own])[:, None]
        found.append(
            PeerTiming(
                cell=cell,
                candidate=candidate.name,
                group=candidate.group,
                precision=candidate.precision,
                schedule=candidate.schedule,
                version=process.version,
                latency_ms_p50=float(np.median(np.concatenate(own))),
                speedup=float(np.median(reference) / np.median(medians)),
                speedup_interval=speedup_interval(reference, medians),
                flipped_percent=_flipped_percent(expected, answer) if cell.subject == "encoder" else None,
                cosine=None if cell.subject == "encoder" else _lowest_cosine(expected, answer),
                samples_ms=tuple(tuple(round(value, 3) for value in runs) for runs in own),
            )
        )
    return found


def _lowest_cosine(expected: npt.NDArray[np.generic], found: npt.NDArray[np.generic]) -> float:
    return float(cosine_similarities(expected.astype(np.float64), found.astype(np.float64)).min())


def _flipped_percent(expected: npt.NDArray[np.generic], found: npt.NDArray[np.generic]) -> float:
    bits = flipped_bits(expected.astype(np.uint8), found.astype(np.uint8))
    return 100 * float(bits.sum()) / (8 * expected.size)
