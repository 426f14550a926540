"""From a trained recurrent compression-and-recognition checkpoint to fast engines with proof of parity.

The package's folders follow the way of the data: `models` (the networks and their checkpoints),
`export` (checkpoint to ONNX bundle), `backends` (graph to engine, engine to outputs), `verification`,
`benchmarking`, `reporting`; `workflow` joins them and `cli` prints what they return.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime reads it when it starts, whoever imports it; its builds for Linux send telemetry from 1.29 on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
