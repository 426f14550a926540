"""A result is saved before it is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.cli.results import show_result
from tests.support.benchmark_runs import planted_run

if TYPE_CHECKING:
    from pathlib import Path


class ClosedPipe:
    """Standard output whose reader ended."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def write(self, _: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("as_json", [True, False])
def test_a_closed_pipe_does_not_lose_the_result(
    *, as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = planted_run(0, created_by="ccr-deploy 1.0")
    # rich connects the descriptor to /dev/null, and exits.
    with (tmp_path / "output").open("w") as file:
        monkeypatch.setattr("sys.stdout", ClosedPipe(file.fileno()))
        with pytest.raises((BrokenPipeError, SystemExit)):
            show_result(result, (), tmp_path, as_json=as_json, warnings=["a warning"])
    assert json.loads((tmp_path / "benchmark.json").read_bytes())["bundle"] == result.bundle
