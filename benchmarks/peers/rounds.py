"""Interleaved rounds of one cell: every round runs each candidate, in rotating order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.results import PeerTiming
from ccr_deploy.benchmarking.interleaving import SETTLING_SECONDS
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from benchmarks.peers.process import PeerProcess
    from benchmarks.peers.results import Cell
    from ccr_deploy.core.progress import Progress

RUNS_PER_ROUND = 10
"""The largest number of runs of a fast candidate in a round."""
RUN_TARGET_SECONDS = 0.15
"""How long the runs of a fast candidate in a round take together."""
SLOW_CELL_MS = 500.0
"""If half of the candidates of a cell need longer, each of them runs once in a round."""

Samples = list[tuple[float, ...]]
"""The milliseconds of each run, one tuple for each round."""


def runs_in_a_round(milliseconds: float) -> int:
    """Return the number of runs of a candidate in a round, from the time of one."""
    return int(np.clip(round(RUN_TARGET_SECONDS * 1000 / milliseconds), 1, RUNS_PER_ROUND))


def is_slow(first_ms: Sequence[float]) -> bool:
    """Return whether the first runs of a cell's candidates took so long that each runs once in a round.

    Their median decides, because the first run of `torch.compile` compiles.
    """
    return float(np.median(first_ms)) > SLOW_CELL_MS


def runs_of_candidates(
    processes: Sequence[PeerProcess], batch: int, first_ms: Sequence[float]
) -> tuple[int, ...]:
    """Return the number of runs of each candidate in a round; a run of each finds it, if none is slow.

    Args:
        processes: the candidates' processes, which have run this batch size once.
        batch: the batch size.
        first_ms: the milliseconds of each candidate's first run.
    """
    if is_slow(first_ms):
        return (1,) * len(processes)
    return tuple(runs_in_a_round(min(process.round(batch, 1))) for process in processes)


def affordable_rounds(seconds: float, round_seconds: float, fewest: int, most: int) -> int:
    """Return the number of rounds that fit into a time.

    Args:
        seconds: the time for the cell.
        round_seconds: the time of one round.
        fewest: the least number of rounds, whatever time they take.
        most: the largest number of rounds.
    """
    return max(fewest, min(most, int(seconds / round_seconds)))


def measure(
    processes: Sequence[PeerProcess],
    cell: Cell,
    runs: Sequence[int],
    rounds: Callable[[float], int],
    progress: Progress,
) -> list[Samples]:
    """Time the candidates of one cell, each in its own process.

    Args:
        processes: the candidates' processes, which have run this batch size once.
        cell: what runs.
        runs: the number of runs of each candidate in a round.
        rounds: returns the number of rounds from the seconds of the first one.
        progress: advances by one for each round.

    Returns:
        The samples of each candidate.
    """
    samples: list[Samples] = [[] for _ in processes]

    def run_round(number: int) -> None:
        for offset in range(len(processes)):
            index = (number + offset) % len(processes)
            time.sleep(SETTLING_SECONDS)  # threads of the library timed before spin for some milliseconds
            samples[index].append(processes[index].round(cell.batch, runs[index]))

    started = time.monotonic()
    run_round(0)
    total = rounds(time.monotonic() - started)
    with progress.task(f"timing: {cell}", total) as advance:
        advance(1)
        for number in range(1, total):
            run_round(number)
            advance(1)
    return samples


def cell_timings(
    cell: Cell,
    processes: Sequence[PeerProcess],
    samples: Sequence[Samples],
    answers: Mapping[str, npt.NDArray[np.generic]],
) -> list[PeerTiming]:
    """Return the results of one cell; answers are compared with those of the first candidate.

    Args:
        cell: what ran.
        processes: the candidates' processes.
        samples: the samples of each candidate.
        answers: the output of each candidate by name: packed codes ``[N, bytes]``, or logits.
    """
    expected = answers[processes[0].candidate.name]
    found = []
    for process, own in zip(processes, samples, strict=True):
        candidate, answer = process.candidate, answers[process.candidate.name]
        found.append(
            PeerTiming(
                cell=cell,
                candidate=candidate.name,
                group=candidate.group,
                precision=candidate.precision,
                schedule=candidate.schedule,
                version=process.version,
                latency_ms_p50=float(np.median(np.array(own))),
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
