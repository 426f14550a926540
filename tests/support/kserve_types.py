"""Validate mappings against KServe's typed classes in a child process; see `tests.support.kserve_process`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from ccr_deploy.core.child_process import ChildProcess

ROOT = Path(__file__).parents[2]


def typed(content: Any, kind: str) -> str:
    """Return the name of the class that `content` was converted to, for the class named `kind`.

    Raises:
        AssertionError, ValueError: if a field is unknown, missing or of another type.
    """
    process = _process()
    process.send((content, kind))
    answer = process.receive(dict[str, str], 60)
    if "problem" in answer:
        raise (AssertionError if answer["kind"] == "assertion" else ValueError)(answer["problem"])
    return answer["name"]


def end() -> None:
    """End the child process, if it was started."""
    if _process.cache_info().currsize:
        _process().__exit__(None, None, None)
        _process.cache_clear()


@cache
def _process() -> ChildProcess:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return ChildProcess("tests.support.kserve_process", environment={"PYTHONPATH": path})
