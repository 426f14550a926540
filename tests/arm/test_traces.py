"""A run in the root folder leaves no mount, process or registration, even if it is killed."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.processes import PATIENCE_SECONDS, heirs, started
from tests.arm.root_folder import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.arm.root_folder import RootFolder

pytestmark = pytest.mark.arm

BINFMT = Path("/proc/sys/fs/binfmt_misc")
MARK = "CCR_DEPLOY_TEST_ARM_RUN"
RUN = """
import subprocess, sys
from pathlib import Path
from tests.arm.root_folder import RootFolder, arm_programs_run
folder = RootFolder(Path(sys.argv[1]))
sleeping = folder.command(["sh", "-c", "sleep 1000 & uname -m; sleep 1000"])
with arm_programs_run() as entry:
    print(entry, flush=True)
    subprocess.run(sleeping, env=folder.environment({sys.argv[2]: sys.argv[3]}))
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_or_mount_is_left(root: RootFolder, ending: signal.Signals) -> None:
    mark = secrets.token_hex(8)
    command = [sys.executable, "-c", RUN, root.path, MARK, mark]
    with started(command, cwd=PROJECT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        entry = Path(owner.stdout.readline().strip())
        assert owner.stdout.readline() == "aarch64\n"
        assert len(heirs(MARK, mark)) >= 3
        assert sees_mounts(root.path)
        assert entry.name in registered()
        owner.send_signal(ending)
        owner.wait(PATIENCE_SECONDS)
        wait_until(lambda: not heirs(MARK, mark))
        wait_until(lambda: entry.name not in registered())
        assert not sees_mounts(root.path)


def sees_mounts(folder: Path) -> list[Path]:
    """The processes of this machine in whose namespaces something is mounted in a folder."""
    seen = []
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if f" {folder}/" in mounts.read_text():
                seen.append(mounts.parent)
    return seen


def registered() -> list[str]:
    """The entries of binfmt_misc, even if it is not mounted."""
    listing = f"[ -e {BINFMT}/register ] || mount -t binfmt_misc binfmt_misc {BINFMT}; ls {BINFMT}"
    command = ["unshare", "--mount", "sh", "-ec", listing]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
