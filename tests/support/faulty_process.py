"""A candidate's process whose engines have a fault: ``python -m tests.support.faulty_process DESCRIPTOR``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.benchmarking import candidate_process
from ccr_deploy.benchmarking.candidate_process import LoadedCandidate
from ccr_deploy.core.child_process import Owner
from tests.support.faulty_runners import TiringRunner, with_fault

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.worker import RoundSamples

_RIGHT_ROUNDS = 2


def install() -> None:
    """Let this process load engines with a fault, which tire after some rounds."""
    run_round = LoadedCandidate.round
    rounds = 0

    def counted_round(candidate: LoadedCandidate, runs: int) -> RoundSamples:
        nonlocal rounds
        rounds += 1
        TiringRunner.is_tired = rounds > _RIGHT_ROUNDS
        return run_round(candidate, runs)

    candidate_process.load_engine = with_fault(candidate_process.load_engine)
    LoadedCandidate.round = counted_round  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    candidate_process.serve(Owner())
