"""Runs of engines in sequence on repeated and fresh inputs, and the ratio of their times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.benchmarking.inputs import FRESH, REPEATED
from ccr_deploy.benchmarking.statistics import median_ratio_interval
from ccr_deploy.core.records import Record
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.benchmarking.inputs import InputSource
    from ccr_deploy.core.metrics import Interval

    Array = npt.NDArray[np.generic]
    Floats = npt.NDArray[np.float64]

_PREPARED_BYTES = 16 << 20
"""Inputs that are made at a time, between runs."""


class InputTimes(Record, frozen=True):
    """The times of one round in nanoseconds, with a letter for each as `inputs_of_round` returns them."""

    nanoseconds: tuple[int, ...]
    inputs: str


def only_output(runner: Runner, array: Array) -> Array:
    """Return the only output of a runner for its only input."""
    (spec,) = runner.inputs
    (output,) = runner.infer({spec.name: array}).values()
    return output


def run_in_sequence(runners: Sequence[Runner], array: Array) -> tuple[Array, ...]:
    """Run engines, each on the output of the one before; return the output of each.

    Args:
        runners: the engines.
        array: input of the first one: images ``uint8 [N, H, W, 3]`` or packed codes ``uint8 [N, bytes]``.

    Raises:
        EngineError: if a run fails, or its output has another number of items than its input.
    """
    outputs: list[Array] = []
    for number, runner in enumerate(runners, 1):
        output = only_output(runner, array)
        if len(output) != len(array):
            raise EngineError(
                f"engine {number} of {len(runners)} returned {len(output)} items for {len(array)}: "
                "run ccr-deploy verify"
            )
        outputs.append(output)
        array = output
    return tuple(outputs)


def time_round(
    run: Callable[[Array], tuple[Array, ...]], source: InputSource, inputs: str, number: int
) -> tuple[InputTimes, list[tuple[Array, ...]]]:
    """Time one run for each input of a round; return the times, and the outputs for the repeated input.

    Args:
        run: runs the engines once, and returns the output of each.
        source: makes the inputs, before the clock starts.
        inputs: a letter for each run, as `inputs_of_round` returns them.
        number: the number of the round.
    """
    nanoseconds: list[int] = []
    repeated: list[tuple[Array, ...]] = []
    at_once = max(1, _PREPARED_BYTES // source.batch_bytes)
    for start in range(0, len(inputs), at_once):
        part = inputs[start : start + at_once]
        batches = [source.make(letter, number) for letter in part]
        for letter, batch in zip(part, batches, strict=True):
            started = time.perf_counter_ns()
            outputs = run(batch)
            nanoseconds.append(time.perf_counter_ns() - started)
            if letter == REPEATED:
                repeated.append(outputs)
    return InputTimes(tuple(nanoseconds), inputs), repeated


def fresh_input_ratio(
    samples: Iterable[npt.ArrayLike], inputs: Sequence[str]
) -> tuple[float, Interval] | tuple[None, None]:
    """Return the median time on fresh inputs divided by that on repeated ones, with its 95 % interval.

    Args:
        samples: times of each round, in any unit.
        inputs: a letter for each sample of each round.

    Returns:
        None, twice, if a round does not have both kinds.
    """
    if not (rounds := _fresh_and_repeated(samples, inputs)):
        return None, None
    fresh, repeated = zip(*rounds, strict=True)
    ratio = float(np.median(np.concatenate(fresh)) / np.median(np.concatenate(repeated)))
    return ratio, median_ratio_interval(fresh, repeated)


def fresh_input_ratios(samples: Iterable[npt.ArrayLike], inputs: Sequence[str]) -> tuple[float, ...]:
    """Return the median time on fresh inputs divided by that on repeated ones, of each round.

    Args:
        samples: times of each round, in any unit.
        inputs: a letter for each sample of each round.

    Returns:
        Nothing if a round does not have both kinds.
    """
    return tuple(
        float(np.median(fresh) / np.median(repeated))
        for fresh, repeated in _fresh_and_repeated(samples, inputs)
    )


def _fresh_and_repeated(
    samples: Iterable[npt.ArrayLike], inputs: Sequence[str]
) -> list[tuple[Floats, Floats]]:
    """Return the times on fresh and on repeated inputs of each round; none if one lacks a kind."""
    if not inputs or not all({REPEATED, FRESH} <= set(letters) for letters in inputs):
        return []
    found = []
    for own, letters in zip(samples, inputs, strict=True):
        times, is_fresh = np.asarray(own, dtype=np.float64), np.array([*letters]) == FRESH
        found.append((times[is_fresh], times[~is_fresh]))
    return found
