"""Messages about missing tools of ``make test-arm`` and ``make test-containers``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"


@pytest.mark.parametrize(
    ("script", "tool"), [("check_arm_tools.sh", "debootstrap"), ("check_container_tools.sh", "podman")]
)
def test_missing_tools_are_one_line_and_a_status_of_their_own(tmp_path: Path, script: str, tool: str) -> None:
    for there in ("uname", "id"):
        (tmp_path / there).symlink_to(str(shutil.which(there)))
    missing = f"{tool} is missing" if os.geteuid() == 0 else "run it as root"
    assert missing in line_of(script, tmp_path)


def test_installing_without_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "id").symlink_to(str(shutil.which("id")))
    assert "needs root on Debian or Ubuntu" in line_of("install_container_tools.sh", tmp_path)


def line_of(script: str, path: Path) -> str:
    """Return the one line that a script prints if only the programs in a folder exist."""
    checked = subprocess.run(
        ["/bin/sh", str(SCRIPTS / script)],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 69
    (line,) = checked.stderr.splitlines()
    return line


def test_shellcheck_reports_no_problem() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    scripts = [*SCRIPTS.glob("*.sh"), *(ROOT / "tests" / "arm").glob("*.sh")]
    checked = subprocess.run(
        [str(shellcheck), *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")
