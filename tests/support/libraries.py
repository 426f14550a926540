"""Pytest plugin: settings of heavy libraries for tests, made without importing them."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class OneThreadedTorch:
    """Import hook that limits torch to one thread when it is imported.

    Tiny models gain nothing from more threads, which wait for each other on a busy machine. An environment
    variable is not used, since processes that tests start would inherit it.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_limit(module: ModuleType) -> None:
            execute(module)
            module.set_num_threads(1)

        spec.loader.exec_module = execute_and_limit
        return spec


def pytest_configure() -> None:
    sys.meta_path.insert(0, OneThreadedTorch)
    sys.modules.setdefault("openvino_telemetry", None)  # for tests that import OpenVINO directly
