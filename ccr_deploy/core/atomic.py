"""Files and folders that appear whole or not at all, in folders that one command at a time writes to.

What takes milliseconds to import is imported by what writes, since a product only reads.
"""

from __future__ import annotations

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
    """Yields a temporary path beside `path` to write to, and renames it to `path` at the end.

    On an error, or Ctrl-C, the temporary file is removed and what was at `path` stays. A killed
    process leaves only a `.tmp` file, never half a `path`.
    """
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` to fill, and puts it in the place of `path` at the end.

    On an error, or Ctrl-C, the new folder is removed and what was at `path` stays. A killed process leaves
    the old folder or the new one whole, or, if it was killed between two renames, none at `path` and the
    old one beside it, in a folder that ends in `.tmp`: the next call puts it back, and clears what others
    have left.
    """

    def put_back(abandoned: Path) -> None:
        if (abandoned / "old").is_dir() and not path.exists():
            (abandoned / "old").replace(path)

    with working_folder(path.parent, f".{path.name}.", ".tmp", put_back) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        flush(new)
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
    """Yields a new folder to work in, locked meanwhile; those that nobody has locked any more are cleared.

    A lock ends with its process, however that ends, and holds between containers that share a volume.

    Args:
        parent: where it is made.
        prefix: what its name begins with.
        suffix: what its name ends with.
        put_back: called with a folder that is about to be cleared, to take out what belongs elsewhere.
    """
    import shutil
    import tempfile

    with ExitStack() as stack:
        with folder_lock(parent):  # or a folder could be cleared before its owner has locked it
            for abandoned in parent.glob(f"{glob.escape(prefix)}*{suffix}"):
                with suppress(OSError), folder_lock(abandoned, wait=False):
                    put_back(abandoned)
                    shutil.rmtree(abandoned, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=parent)
            folder = Path(stack.enter_context(made))
            stack.enter_context(folder_lock(folder))
        yield folder


def flush(path: Path) -> None:
    """Make sure that a file, or every file below a folder, is on the disk before a rename makes it count."""
    for file in filter(Path.is_file, (path, *path.rglob("*"))):
        with file.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def writing(path: Path, error: type[CcrDeployError], what: str = "") -> Iterator[None]:
    """Say which file or folder could not be written, and with `what` what it was for (``"the report "``).

    Raises:
        error: the operating system refused something; the message names `path` and says why.
    """
    try:
        yield
    except OSError as refusal:
        raise error(f"{path}: {what}cannot be written ({refusal.strerror or refusal})") from refusal


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a folder; a process that ends, however it does, gives it free.

    Raises:
        BlockingIOError: another holder has it, and nobody wants to wait.
        OSError: the folder is not there, or cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path, error: type[CcrDeployError]) -> Iterator[None]:
    """Keeps other commands from writing to a folder.

    Raises:
        error: another command is writing to it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError:
            raise error(f"{folder}: another command is writing to it: wait for it to end") from None
        yield
