"""Atomic writes of files and folders, and locks that let one command at a time write to a folder.

`tempfile` and `shutil` are imported by the functions that need them: importing them takes milliseconds, and a
product that uses `ccr_deploy.runtime` only reads.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccr_deploy.errors import CcrDeployError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, and rename it to `path` at the end.

    On an error or Ctrl-C the temporary file is removed and the old content of `path` stays. A killed process
    leaves at most a `.tmp` file, never a partial `path`.

    Raises:
        OSError: if the file cannot be written, or `path` is a FIFO, socket or device.
    """
    import tempfile

    # Renaming replaces a device too: as root, in a container, /dev/null would become a file.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a FIFO, socket or device, not a regular file", str(path))
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o644)  # mkstemp creates the file for its owner alone
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill, and replace `path` with it at the end.

    On an error or Ctrl-C the new folder is removed and the old one stays at `path`. After a killed process,
    `path` is the complete old folder or the complete new one. The exception: if the process was killed
    between the two renames, `path` is missing, and the old folder is beside it in a folder whose name ends in
    `.tmp`. The next call moves it back, and removes the temporary folders of killed processes.
    """

    def put_back(abandoned: Path) -> None:
        if (abandoned / "old").is_dir() and not path.exists():
            (abandoned / "old").replace(path)

    with working_folder(path.parent, f".{path.name}.", ".tmp", put_back) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        flush(new)
        # A rename cannot replace a folder that has content, so the old one is moved away first.
        if path.exists():
            path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            if old.exists():
                old.replace(path)
            raise


@contextmanager
def working_folder(
    parent: Path, prefix: str, suffix: str, put_back: Callable[[Path], None]
) -> Iterator[Path]:
    """Yield a new locked folder to work in, and remove the abandoned folders of earlier processes.

    A folder is abandoned if its lock is free: the kernel releases a lock when the process exits. Locks also
    work between containers that share a volume.

    Args:
        parent: the folder to create it in.
        prefix: the first part of its name.
        suffix: the last part of its name.
        put_back: called with each abandoned folder before it is removed, to move content that must be kept.
    """
    import shutil
    import tempfile

    with ExitStack() as stack:
        with folder_lock(parent):  # otherwise another process could remove the new folder before it is locked
            for abandoned in parent.glob(f"{glob.escape(prefix)}*{suffix}"):
                with suppress(OSError), folder_lock(abandoned, wait=False):
                    put_back(abandoned)
                    shutil.rmtree(abandoned, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=parent)
            folder = Path(stack.enter_context(made))
            stack.enter_context(folder_lock(folder))
        yield folder


def flush(path: Path) -> None:
    """Write a file, or every file below a folder, from the system's buffers to the disk.

    Called before a rename: after a power failure, the new name could otherwise belong to an empty file.
    """
    for file in filter(Path.is_file, (path, *path.rglob("*"))):
        with file.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def writing(path: Path, error: type[CcrDeployError], what: str = "") -> Iterator[None]:
    """Turn an OSError in the body into a project error that names the file or folder.

    Args:
        path: the file or folder that is written, for the message.
        error: the exception to raise.
        what: what is written, with a trailing space (``"the report "``); empty if the path is enough.

    Raises:
        error: if the body raises OSError; the message contains the path and the reason.
    """
    try:
        yield
    except OSError as refusal:
        raise error(f"{path}: {what}cannot be written ({refusal.strerror or refusal})") from refusal


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of `path` in one step."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a folder. Released when the process exits, even if its forked children live.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is false.
        OSError: if the folder does not exist or cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        if descriptor in _held:  # not in a forked child
            _held.discard(descriptor)
            os.close(descriptor)


_held: set[int] = set()
"""Descriptors of the locked folders."""


def _close_held() -> None:
    """Close the locked folders in a forked child, which would keep the locks after its parent's death."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_held)


@contextmanager
def locked_folder(folder: Path, error: type[CcrDeployError]) -> Iterator[None]:
    """Lock a folder against other commands that write to it.

    Raises:
        error: if another command is writing to it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError:
            raise error(f"{folder}: another command is writing to it: wait until it ends") from None
        yield
