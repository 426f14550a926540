"""How many threads a backend takes."""

from __future__ import annotations

import os

from ccr_deploy.backends.threads import thread_count


def test_a_number_of_threads_is_taken_as_it_is() -> None:
    assert thread_count(3) == 3


def test_else_as_many_as_the_process_may_use() -> None:
    assert 1 <= thread_count() <= (os.cpu_count() or 1)
