"""The number of threads of an engine."""

from __future__ import annotations

import os

from ccr_deploy.backends.threads import thread_count


def test_a_given_number_of_threads_is_used() -> None:
    assert thread_count(3) == 3


def test_by_default_all_usable_processors_are_used() -> None:
    assert 1 <= thread_count() <= (os.cpu_count() or 1)
