"""The Python that `make` uses, if some are missing, cannot run or are too old."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FIND_PYTHON = ROOT / "scripts" / "find_python.sh"
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
"""What pyenv leaves on PATH for a version that is installed, but not chosen."""
WORKS = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
TOO_OLD = "#!/bin/sh\nexit 1\n"
"""As the script's own question is answered by Python 3.10, or by one without ensurepip."""
UV = """#!/bin/sh
echo "$@" >>"$UV_LOG"
if [ "$2" = find ]; then echo "$MANAGED"; fi
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that is the whole PATH, with the programs that the script needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for command in ("mktemp", "rm"):
        found = shutil.which(command)
        assert found
        (folder / command).symlink_to(found)
    return folder


def put(path: Path, name: str, content: str) -> Path:
    (path / name).write_text(content, encoding="utf-8")
    (path / name).chmod(0o755)
    return path / name


def find_python(path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(FIND_PYTHON), *arguments],
        env={"PATH": str(path), "TMPDIR": str(path.parent)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_usable_python_is_used_and_named(path: Path) -> None:
    put(path, "python3.11", SHIM)
    chosen = put(path, "python3.12", WORKS)
    put(path, "python3.13", WORKS)
    found = find_python(path)
    assert (found.returncode, found.stdout) == (0, f"{chosen}\n")
    version = ".".join(map(str, sys.version_info[:3]))
    assert found.stderr == f"Python {version} ({sys.executable})\n"


def test_a_plain_python3_is_used_if_it_is_new_enough(path: Path) -> None:
    put(path, "python3.11", TOO_OLD)
    chosen = put(path, "python3", WORKS)
    assert find_python(path).stdout == f"{chosen}\n"


def test_the_requested_python_is_used(path: Path) -> None:
    put(path, "python3.11", WORKS)
    chosen = put(path, "python3.13", WORKS)
    assert find_python(path, "python3.13").stdout == f"{chosen}\n"


@pytest.mark.parametrize("content", [SHIM, TOO_OLD, None])
def test_a_requested_python_that_is_not_usable_is_refused(path: Path, content: str | None) -> None:
    put(path, "python3.11", WORKS)
    if content:
        put(path, "python3.12", content)
    refused = find_python(path, "python3.12")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("python3.12: not a Python from 3.11 to 3.13 with venv")


def test_uv_downloads_a_python_if_none_is_usable(path: Path) -> None:
    put(path, "python3", TOO_OLD)
    put(path, "uv", UV)
    managed = put(path.parent, "managed", WORKS)
    log = path.parent / "log"
    found = find_python(path, UV_LOG=str(log), MANAGED=str(managed))
    assert (found.returncode, found.stdout) == (0, f"{managed}\n"), found.stderr
    assert "uv downloads 3.12" in found.stderr
    assert "python install --no-bin 3.12" in log.read_text(encoding="utf-8")
    assert {left.name for left in path.parent.iterdir()} == {"bin", "log", "managed"}


def test_without_python_and_uv_the_message_says_what_to_install(path: Path) -> None:
    refused = find_python(path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "found neither a Python from 3.11 to 3.13 with venv nor uv" in refused.stderr
