"""Plugins of all tests. They import heavy libraries only in the fixtures that need them."""

from __future__ import annotations

pytest_plugins = (
    "tests.support.libraries",
    "tests.support.left_processes",
    "tests.support.workers",
    "tests.support.short_rounds",
    "tests.support.bundles",
    "tests.support.demo",
)
