"""Folders whose content is believed, or run: nobody else may own them or write to them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

SHARED_VARIABLE = "CCR_DEPLOY_SHARED_ENGINES"
"""Set to 1 where a volume's owner and mode are given from outside, as in a Kubernetes pod."""


def make_private_folder(folder: Path) -> None:
    """Create a folder for its owner alone, and those above it as usual; one that is there is checked.

    Raises:
        EngineError: another user owns it or may write to it.
        OSError: it cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """Raise an EngineError if another user owns a folder or may write to it; one that is missing is fine."""
    if os.environ.get(SHARED_VARIABLE) == "1":
        return
    try:
        found = folder.stat()
    except OSError:
        return
    if problem := sharing_problem(found.st_uid, found.st_mode, os.geteuid()):
        raise EngineError(
            f"{folder}: {problem}, and engines are code: run chmod go-w on a store of yours, choose another "
            f"with --engines, or, on a volume that only your own containers mount, set {SHARED_VARIABLE}=1"
        )


def sharing_problem(owner: int, mode: int, user: int) -> str | None:
    """Tell why a user should not believe what is in a folder.

    Args:
        owner: the user id of the folder's owner.
        mode: its mode, as ``os.stat`` gives it.
        user: the user id of whoever asks.

    Returns:
        None if nobody but the user and root may write to it.
    """
    if owner != user:
        return f"user {owner} owns it, and you are user {user}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users may write to it (mode {stat.S_IMODE(mode):04o})"
    return None
