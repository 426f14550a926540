"""One try of an attack, and the results of all tries."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.cli_runner import Outcome, run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Attack = Callable[["Tally", random.Random, float], None]

MOST_SECONDS = 20
"""Of processor time."""

LONGEST_WAIT = 300
"""In seconds; a command that takes longer is considered to be waiting."""

MOST_MEBIBYTES = 600


@dataclass
class Tally:
    """The results of one kind of attack."""

    name: str
    tried: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, *, refused: bool, failure: str | None) -> None:
        """Count one try."""
        self.tried += 1
        self.refused += refused
        if failure:
            self.failures.append(failure)


class TookTooLongError(BaseException):
    """Raised by the alarm; the program must not handle it as one of its errors."""


def too_long(*_: object) -> None:
    """Handle SIGALRM."""
    raise TookTooLongError


def attempt(*arguments: object) -> tuple[Outcome, str | None]:
    """Run a command in this process, and return the property that did not hold."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    processor = time.process_time()
    signal.alarm(LONGEST_WAIT)
    try:
        outcome = run(*arguments)
    except TookTooLongError:
        return Outcome(-1, "", ""), f"waited: {arguments}"
    finally:
        signal.alarm(0)
    took = time.process_time() - processor
    if took > MOST_SECONDS:
        return outcome, f"took {took:.0f} s: {arguments}: {outcome.stderr}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    too_much = f"took {grown} MiB: {outcome.stderr}" if grown > MOST_MEBIBYTES else None
    return outcome, too_much or problem(outcome)


def problem(outcome: Outcome) -> str | None:
    """What is wrong with how a command ended."""
    lines = outcome.stderr.splitlines()
    if "error: unexpected" in outcome.stderr:
        return outcome.stderr[:300]
    if outcome.status not in {0, 1} and len(lines) != 1:
        return f"{len(lines)} lines on stderr: {outcome.stderr[:300]}"
    shown = (outcome.stdout + outcome.stderr).replace("\n", "")
    return None if shown.isprintable() else f"control characters: {shown[:300]!r}"
