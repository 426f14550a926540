"""Pytest plugin: short rounds of timing, for tests in which the times do not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUND_SECONDS = 0.02
"""Instead of 0.4, with at least 3 runs as always."""


@pytest.fixture(scope="module")
def short_rounds() -> Iterator[None]:
    """Time each candidate for `ROUND_SECONDS` in each round of a command that runs in this process."""
    from ccr_deploy.benchmarking import interleaving

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleaving, "ROUND_TARGET_SECONDS", ROUND_SECONDS)
        yield
