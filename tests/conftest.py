"""What all tests share. Plugins import heavy libraries where a fixture needs them, not before."""

from __future__ import annotations

pytest_plugins = (
    "tests.support.libraries",
    "tests.support.left_processes",
    "tests.support.workers",
    "tests.support.bundles",
    "tests.support.demo",
)
