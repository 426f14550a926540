"""One training at a time in a folder."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ccr_deploy.core.atomic import locked_folder, writing
from ccr_deploy.errors import TrainingError
from training.loop.options import process_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def one_training_in(folder: Path) -> Iterator[None]:
    """Create a folder, and lock it against other trainings. The first process of a training has the lock.

    Args:
        folder: where result, state and logs are written.

    Raises:
        TrainingError: if another training writes to it, or it cannot be created.
    """
    with ExitStack() as stack:
        if process_number() == 0:
            with writing(folder, TrainingError):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked_folder(folder, TrainingError))
        yield
