"""Import rules in addition to import-linter's contracts, which ignore imports for type checking."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp
import pytest

ROOTS = ("ccr_deploy", "training", "benchmarks", "deploy", "scripts")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOTS, include_external_packages=True, cache_dir=None)


def test_imports_have_no_cycles(graph: grimp.ImportGraph) -> None:
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imported).prepare()


def test_only_tests_import_tests(graph: grimp.ImportGraph) -> None:
    assert "numpy" in graph.modules
    importers = graph.find_modules_that_directly_import("tests") if "tests" in graph.modules else set()
    assert importers == set()
