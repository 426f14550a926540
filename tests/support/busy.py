"""Other processes that compute, so that a machine is surely busy."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPUTE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("computing", flush=True)
while True:
    pass
"""


@contextmanager
def busy_machine() -> Iterator[None]:
    """A process that computes for every second core; they end with the context, or with the test run."""
    with ExitStack() as stack:
        for _ in range((len(os.sched_getaffinity(0)) + 1) // 2):
            process = subprocess.Popen(
                [sys.executable, "-c", _COMPUTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
        yield
