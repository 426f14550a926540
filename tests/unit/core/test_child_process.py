"""Child processes that exchange messages over a pipe."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError, peak_memory_mib

if TYPE_CHECKING:
    from pathlib import Path

ECHO = """
import os, signal, sys, time
from typing import Any
from ccr_deploy.core.child_process import Owner
pipe = Owner()
pipe.send(os.getpid())
while True:
    what, value = pipe.receive(Any)
    if what == "echo":
        pipe.send(value)
    elif what == "print":
        print(value, flush=True)
        print(value, file=sys.stderr, flush=True)
        pipe.send("printed")
    elif what == "environment":
        pipe.send(os.environ.get(value))
    elif what == "exit":
        sys.exit(value)
    elif what == "kill":
        os.kill(os.getpid(), value)
    elif what == "sleep":
        time.sleep(value)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echo_child.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "echo_child"


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_messages_are_exchanged_in_both_directions(module: str) -> None:
    with ChildProcess(module) as child:
        pid = child.receive(Any, 30)
        child.send(("echo", {"a": 1}))
        assert child.receive(Any, 30) == {"a": 1}
    assert not is_running(pid)


def test_output_of_the_child_goes_to_its_log(module: str, tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with ChildProcess(module, log=log) as child:
        child.receive(Any, 30)
        child.send(("print", "hello"))
        assert child.receive(Any, 30) == "printed"
        assert log.read_text() == "hello\nhello\n"


def test_the_environment_is_the_owners_with_additions(module: str) -> None:
    with ChildProcess(module, environment={"EXTRA": "yes"}) as child:
        child.receive(Any, 30)
        for name, value in (("EXTRA", "yes"), ("PATH", os.environ["PATH"])):
            child.send(("environment", name))
            assert child.receive(Any, 30) == value


@pytest.mark.parametrize(
    ("request_", "message"),
    [(("exit", 7), "exited with status 7"), (("kill", 9), "killed by SIGKILL"), (("kill", 11), "SIGSEGV")],
)
def test_the_error_contains_exit_status_or_signal(
    module: str, request_: tuple[str, int], message: str
) -> None:
    with ChildProcess(module) as child:
        child.receive(Any, 30)
        child.send(request_)
        with pytest.raises(ProcessEndedError, match=message):
            child.receive(Any, 30)


def test_a_child_without_an_answer_in_time_raises_timeout_error(module: str) -> None:
    with ChildProcess(module, patience_seconds=0) as child:
        child.receive(Any, 30)
        child.send(("sleep", 60))
        with pytest.raises(TimeoutError):
            child.receive(Any, 0.2)


def test_a_child_that_ignores_the_closed_pipe_is_killed(module: str) -> None:
    started = time.monotonic()
    with ChildProcess(module, patience_seconds=0) as child:
        pid = child.receive(Any, 30)
        child.send(("sleep", 600))
    assert not is_running(pid)
    assert time.monotonic() - started < 60


def test_peak_memory_is_that_of_this_process() -> None:
    assert 5 < peak_memory_mib() < 100_000
