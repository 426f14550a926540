"""The parent's side of a build."""

from __future__ import annotations

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.tensorrt.builder import _with_comparison
from ccr_deploy.core.child_process import ChildProcess


def test_a_builder_that_ends_in_the_comparison_does_not_lose_the_engine() -> None:
    built = BuildFacts(library_version="1.7.1")
    with ChildProcess("platform") as process:  # a module that exits without a message
        facts = _with_comparison(built, process)
    assert facts.library_version == "1.7.1"
    assert facts.fp16_error == "the builder failed: its process exited with status 0"
    assert facts.fp16_seconds > 0
