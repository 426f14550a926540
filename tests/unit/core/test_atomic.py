"""Atomic writes of files and folders, and folder locks."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ccr_deploy.core.atomic import atomic_file, atomic_folder, locked_folder, write_atomically
from ccr_deploy.errors import BundleError


def interrupted_write(path: Path, error: type[BaseException]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_a_new_file_has_the_written_content(tmp_path):
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a longer old content")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_written_file_is_readable_by_other_users(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o644


def test_no_temporary_file_remains(tmp_path):
    write_atomically(tmp_path / "file", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        interrupted_write(path, error)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, error):
    with pytest.raises(error):
        interrupted_write(tmp_path / "file", error)
    assert list(tmp_path.iterdir()) == []


def test_the_path_is_unchanged_until_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"


def test_concurrent_writers_do_not_mix_content(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as first, atomic_file(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"  # the outer one is renamed last


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from ccr_deploy.core.atomic import atomic_file
        with atomic_file(Path(sys.argv[1])) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"


def test_a_missing_folder_raises_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "file", b"new")


def test_a_locked_folder_refuses_a_second_command(tmp_path):
    message = f"{tmp_path}: another command is writing to it"
    with (
        locked_folder(tmp_path, BundleError),
        pytest.raises(BundleError, match=message),
        locked_folder(tmp_path, BundleError),
    ):
        pytest.fail("two commands hold one lock")


def test_a_forked_child_does_not_keep_the_lock_of_its_parent(tmp_path):
    parent = textwrap.dedent("""
        import os, sys, time
        from pathlib import Path
        from ccr_deploy.core.atomic import folder_lock

        with folder_lock(Path(sys.argv[1])):
            if os.fork():
                os._exit(0)
        print(os.getpid(), flush=True)  # the child, which has left the block
        time.sleep(60)
    """)
    command = [sys.executable, "-c", parent, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.wait()
        try:
            with locked_folder(tmp_path, BundleError):
                assert Path(f"/proc/{child}").exists()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path, BundleError):
        raise ZeroDivisionError
    with locked_folder(tmp_path, BundleError):
        pass


def test_an_abandoned_folder_is_removed_and_the_old_content_restored(tmp_path):
    path = tmp_path / "manifests"
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from ccr_deploy.core.atomic import atomic_folder
        path = Path(sys.argv[1])
        with atomic_folder(path) as new:
            (new / "file").write_text("half")
            if sys.argv[2] == "between":
                path.rename(new.parent / "old")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    for moment in ("before", "between"):
        path.mkdir(exist_ok=True)
        (path / "file").write_text("old")
        done = subprocess.run([sys.executable, "-c", script, str(path), moment], check=False)
        assert done.returncode == -9
        assert len(list(tmp_path.glob(".manifests.*.tmp"))) == 1
        with atomic_folder(path) as new:
            assert (path / "file").read_text() == "old"
            (new / "file").write_text("old")
        assert [entry.name for entry in tmp_path.iterdir()] == ["manifests"]
    with atomic_folder(path) as first, atomic_folder(path) as second:  # neither removes the other
        (first / "file").write_text("first")
        (second / "file").write_text("second")
    assert (path / "file").read_text() == "first"


def test_a_fifo_is_not_replaced(tmp_path):
    """As root, devices would be replaced in the same way."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="a FIFO, socket or device, not a regular file"):
        write_atomically(tmp_path / "fifo", b"content")
    assert (tmp_path / "fifo").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]
