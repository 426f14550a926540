"""Trainings in processes of their own.

They are forked from a process that has imported Lightning and the trainings, so that each starts at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.cli_runner import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import ForkServerProcess

PATIENCE_SECONDS = 300
Preparation = Callable[[], None]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["training.cli", "training.cli.results", "training.recipe_data", "training.steps"]
)


def stop_server() -> None:
    """Stop the process that trainings are forked from, which otherwise ends after the last test."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def nothing() -> None:
    """Prepare nothing."""


def signal_at(batch: int, number: int) -> None:
    """Let this process send itself a signal at the start of a batch of its training."""
    from training.loop.seeding import SeedEachBatch

    usual = SeedEachBatch.on_train_batch_start

    def with_signal(self: SeedEachBatch, *arguments: Any) -> None:
        if arguments[-1] == batch:
            os.kill(os.getpid(), number)
        usual(self, *arguments)

    SeedEachBatch.on_train_batch_start = with_signal  # type: ignore[method-assign]


def be_process(number: int) -> None:
    """Let this process have a number among those of a training."""
    os.environ["RANK"] = str(number)


def kill_in_evaluation() -> None:
    """Let this process be killed when its training has ended and its evaluation begins."""
    from training import steps

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    steps.evaluate = kill  # type: ignore[assignment]


def limit_files(size: int) -> None:
    """Let every write behind `size` bytes of a file fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextlib.contextmanager
def started(
    *arguments: object, prepare: Preparation = nothing
) -> Iterator[tuple[ForkServerProcess, Callable[[], Outcome]]]:
    """Start ``python -m training ARGUMENTS``; yield its process and a function that waits for its outcome."""
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        process = _context.Process(
            target=_run, args=([str(argument) for argument in arguments], *streams, prepare)
        )
        process.start()

        def outcome() -> Outcome:
            process.join(PATIENCE_SECONDS)
            assert process.exitcode is not None, "the training did not end"
            return Outcome(process.exitcode, *(stream.read_text() for stream in streams))

        try:
            yield process, outcome
        finally:
            process.kill()
            process.join()


def train(*arguments: object, prepare: Preparation = nothing) -> Outcome:
    """Run ``python -m training ARGUMENTS``.

    Args:
        arguments: the command and its options.
        prepare: called in the process before the command.

    Returns:
        What a shell would see; the status is negative if a signal ended the process.
    """
    with started(*arguments, prepare=prepare) as (_, outcome):
        return outcome()


def _run(arguments: list[str], stdout: Path, stderr: Path, prepare: Preparation) -> None:
    from training.cli import main

    for stream, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    multiprocessing.set_start_method(None, force=True)  # that of a program for its loaders, not this one's
    sys.argv = ["training", *arguments]
    prepare()
    main()
