"""The process of a scenario or a soak whose engines have a fault.

``python -m tests.support.faulty_scenario_process DESCRIPTOR`` runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.benchmarking.scenarios import process, under_test
from ccr_deploy.benchmarking.scenarios.under_test import SystemUnderTest
from ccr_deploy.core.child_process import Owner
from tests.support.faulty_runners import TiringRunner, with_fault

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.answers import Answer


def install() -> None:
    """Let this process load engines with a fault, which tire when the scenario or the soak begins."""
    take = SystemUnderTest.take_answers

    def take_and_tire(system: SystemUnderTest) -> tuple[Answer, ...]:
        TiringRunner.is_tired = True
        return take(system)

    under_test.load_engine = with_fault(under_test.load_engine)
    SystemUnderTest.take_answers = take_and_tire  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    process.serve(Owner())
