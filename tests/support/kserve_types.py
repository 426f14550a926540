"""Asks KServe's own typed classes, in a process of their own: see `tests.support.kserve_process`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from ccr_deploy.core.child_process import ChildProcess

ROOT = Path(__file__).parents[2]


def typed(content: Any, kind: str) -> str:
    """The name of the class that `content` becomes an object of, where it fits the class called `kind`.

    Raises:
        AssertionError, ValueError: a field is unknown, missing or of another type.
    """
    process = _process()
    process.send((content, kind))
    answer = process.receive(dict[str, str], 60)
    if "problem" in answer:
        raise (AssertionError if answer["kind"] == "assertion" else ValueError)(answer["problem"])
    return answer["name"]


def end() -> None:
    """End the process in which they are asked, if it was started."""
    if _process.cache_info().currsize:
        _process().__exit__(None, None, None)
        _process.cache_clear()


@cache
def _process() -> ChildProcess:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return ChildProcess("tests.support.kserve_process", environment={"PYTHONPATH": path})
