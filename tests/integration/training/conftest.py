from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.training_processes import stop_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def stopped_server() -> Iterator[None]:
    """No process outlives a module."""
    yield
    stop_server()
