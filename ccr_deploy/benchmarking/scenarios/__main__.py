"""The process of the engines: ``python -m ccr_deploy.benchmarking.scenarios DESCRIPTOR``."""

from ccr_deploy.benchmarking.scenarios.process import serve
from ccr_deploy.core.child_process import Owner

serve(Owner())
