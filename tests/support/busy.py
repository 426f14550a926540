"""Processes that keep the machine busy."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ends when its stdin is closed, so also when the test run is killed.
_COMPUTE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("computing", flush=True)
while True:
    pass
"""


@contextmanager
def busy_machine() -> Iterator[None]:
    """Run one computing process for every second core, until the context or the test run ends."""
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
