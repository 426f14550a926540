"""Pytest plugin: a run that leaves processes behind fails, lists them and kills them.

Every process inherits the run's id in its environment, so that processes are found even if they have left the
session or outlived their parents. On SIGTERM and SIGHUP, a run also ends the processes that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.hosts.processes import heirs

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "CCR_DEPLOY_TEST_RUN"
PATIENCE_SECONDS = 30
"""How long processes may take to exit after their parent."""


def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        return
    os.environ[VARIABLE] = uuid.uuid4().hex
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup, SIGHUP is ignored
            signal.signal(number, end_run)


@pytest.hookimpl(trylast=True)  # pytest-xdist has ended its workers by then
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        return
    left = left_processes(os.environ[VARIABLE])
    if not left:
        return
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    named = "\n".join(f"{process}: {command}" for process, command in left.items())
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    error = pytest.TestReport(
        nodeid="processes that outlived the tests",
        location=(str(session.path), None, "processes that outlived the tests"),
        keywords={},
        outcome="failed",
        longrepr=f"still running after the last test, and now killed:\n{named}",
        when="teardown",
    )
    session.config.pluginmanager.get_plugin("terminalreporter").stats.setdefault("error", []).append(error)


def is_worker(config: pytest.Config) -> bool:
    """Return whether this is a worker of pytest-xdist, which the main process starts and ends."""
    return hasattr(config, "workerinput")


def end_run(number: int, _: Any) -> None:
    """End the run on a signal."""
    pytest.exit(f"ended by {signal.Signals(number).name}", returncode=128 + number)


def left_processes(run: str) -> dict[int, str]:
    """Return the command lines of a run's processes that do not exit by themselves."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := dict(command_lines(run))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def command_lines(run: str) -> Iterator[tuple[int, str]]:
    for process in heirs(VARIABLE, run):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            yield process, b" ".join(words).decode(errors="replace").strip()
