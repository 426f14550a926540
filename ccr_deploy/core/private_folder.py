"""Folders with trusted content, such as engines: no other user may own them or write to them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

SHARED_VARIABLE = "CCR_DEPLOY_SHARED_ENGINES"
"""Disables the check if set to 1: for volumes whose owner and mode are set from outside, as in Kubernetes."""


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700, and its parents with the default mode; check it if it exists.

    Raises:
        EngineError: if another user owns the folder or can write to it.
        OSError: if the folder cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    check_private_folder(folder)  # after mkdir: another user may have created it first


def check_private_folder(folder: Path) -> None:
    """Raise EngineError if another user owns a folder or can write to it; a missing folder passes."""
    if os.environ.get(SHARED_VARIABLE) == "1":
        return
    try:
        found = folder.stat()
    except OSError:
        return
    if problem := sharing_problem(found.st_uid, found.st_mode, os.geteuid()):
        raise EngineError(
            f"{folder}: {problem}, but engines can run code: if the folder is yours, run chmod go-w on it; "
            f"otherwise choose another with --engines, or, if only your containers mount it, set "
            f"{SHARED_VARIABLE}=1"
        )


def sharing_problem(owner: int, mode: int, user: int) -> str | None:
    """Return the reason why a user cannot trust a folder's content; None if no other user can write to it.

    Args:
        owner: user id of the folder's owner.
        mode: the folder's mode, as in ``os.stat``.
        user: user id of the current process.
    """
    if owner != user:
        return f"owned by user {owner}, but you are user {user}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"writable by other users (mode {stat.S_IMODE(mode):04o})"
    return None
