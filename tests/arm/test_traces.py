"""However a run in the root folder ends, it leaves no mount, process or registration."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.arm.root_folder import PROJECT
from tests.processes import PATIENCE_SECONDS, heirs, started

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
def test_nothing_is_left(root: RootFolder, ending: signal.Signals) -> None:
    mark = secrets.token_hex(8)
    before = traces()
    command = [sys.executable, "-c", RUN, root.path, MARK, mark]
    with started(command, cwd=PROJECT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        entry = Path(owner.stdout.readline().strip())
        assert entry.parent == BINFMT
        assert owner.stdout.readline() == "aarch64\n"
        assert len(heirs(MARK, mark)) >= 3
        assert traces() != before
        owner.send_signal(ending)
        owner.wait(PATIENCE_SECONDS)
        wait_until(lambda: not heirs(MARK, mark))
        wait_until(lambda: traces() == before)


def traces() -> tuple[str, list[str]]:
    """This machine's mounts, and what binfmt_misc has, be it mounted or not."""
    listing = f"[ -e {BINFMT}/register ] || mount -t binfmt_misc binfmt_misc {BINFMT}; ls {BINFMT}"
    command = ["unshare", "--mount", "sh", "-ec", listing]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path("/proc/self/mountinfo").read_text(), listed.stdout.split()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
