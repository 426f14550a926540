"""A candidate's process with a short warm-up, ``python -m tests.support.brief_process DESCRIPTOR``.

Beside other work, the rate is not steady, and each warm-up takes its time limit.
"""

from __future__ import annotations

from ccr_deploy.benchmarking import candidate_process, warm_up
from ccr_deploy.core.child_process import Owner

if __name__ == "__main__":
    warm_up.MAX_SECONDS = 0.2
    candidate_process.serve(Owner())
