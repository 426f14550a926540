"""The process of a candidate: ``python -m ccr_deploy.benchmarking DESCRIPTOR``, started by `Worker`."""

from ccr_deploy.benchmarking.candidate_process import serve
from ccr_deploy.core.child_process import Owner

serve(Owner())
