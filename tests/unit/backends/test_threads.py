"""How many threads a backend takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.backends.base import cores_of_quota, thread_count

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("max 100000\n", None),
        ("", None),
        ("unheard of this", None),
    ],
)
def test_a_control_groups_quota_in_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cores_of_quota(tmp_path / "cpu.max") == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores_of_quota(tmp_path / "none") is None


def test_a_number_of_threads_is_taken_as_it_is() -> None:
    assert thread_count(3) == 3


def test_else_as_many_as_the_process_may_use() -> None:
    assert 1 <= thread_count() <= (os.cpu_count() or 1)
