"""The plugin that finds processes that outlive the tests, in separate test runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.hosts.processes import PATIENCE_SECONDS, heirs, started

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
CONFTEST = """
pytest_plugins = ("tests.support.left_processes",)
def pytest_configure(config):
    config.pluginmanager.get_plugin("tests.support.left_processes").PATIENCE_SECONDS = {patience}
"""
LEAVES_A_PROCESS = """
import subprocess, sys
def test_starts():
    program = "import time; time.sleep({seconds})  # left behind"
    subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
"""
WAITS = """
import pathlib, time
def test_waits():
    pathlib.Path({waiting!r}).touch()
    time.sleep(3600)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of such a run's tests; processes that it leaves are killed at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("STARTED_BY", str(tmp_path))
    yield tmp_path
    for process in heirs("STARTED_BY", str(tmp_path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def command(folder: Path, tests: str, workers: int, patience: float) -> list[object]:
    """Return the pytest command for these tests; processes have `patience` seconds to exit by themselves."""
    (folder / "pytest.ini").touch()
    (folder / "conftest.py").write_text(CONFTEST.format(patience=patience))
    (folder / "test_it.py").write_text(tests)
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, folder]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_left_process_is_listed_and_killed_and_the_run_fails(folder: Path, workers: int) -> None:
    tests = LEAVES_A_PROCESS.format(seconds=3600)
    with started(command(folder, tests, workers, 0.5), stdout=subprocess.PIPE) as run:
        output, _ = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    named = re.findall(r"^(\d+): .* -c import time; time\.sleep\(3600\)  # left behind$", output, re.M)
    (process,) = set(named)  # if $CI is set, pytest's summary lists it again
    assert re.search(r"1 passed, 1 error in", output.splitlines()[-1])
    assert not is_running(int(process))


def test_a_process_that_exits_soon_is_waited_for(folder: Path) -> None:
    tests = LEAVES_A_PROCESS.format(seconds=1)
    with started(command(folder, tests, 0, PATIENCE_SECONDS), stdout=subprocess.PIPE) as run:
        output, _ = run.communicate(timeout=PATIENCE_SECONDS)
    assert (run.returncode, "1 passed in" in output.splitlines()[-1]) == (0, True), output


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_no_process(folder: Path, workers: int, number: signal.Signals) -> None:
    waiting = folder / "waiting"
    tests = LEAVES_A_PROCESS.format(seconds=3600) + WAITS.format(waiting=str(waiting))
    with started(command(folder, tests, workers, 0.5), stdout=subprocess.PIPE) as run:
        while run.poll() is None and not waiting.exists():
            time.sleep(0.01)
        assert heirs("STARTED_BY", str(folder))
        run.send_signal(number)
        run.communicate(timeout=PATIENCE_SECONDS)
    assert (
        run.returncode
        == {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: pytest.ExitCode.INTERRUPTED}[number]
    )
    assert heirs("STARTED_BY", str(folder)) == []


def is_running(process: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False
