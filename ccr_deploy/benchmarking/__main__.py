"""A competitor's process: ``python -m ccr_deploy.benchmarking DESCRIPTOR``, started by `Worker`."""

import sys
from multiprocessing.connection import Connection

from ccr_deploy.benchmarking.worker import serve

serve(Connection(int(sys.argv[1])))
