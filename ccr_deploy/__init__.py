"""From a trained recurrent compression-and-recognition checkpoint to fast engines with proof of parity.

The package's folders follow the way of the data: `models` (the networks and their checkpoints),
`export` (checkpoint to ONNX bundle), `backends` (graph to engine, engine to outputs), `verification`,
`benchmarking`, `reporting`; `workflow` joins them and `cli` prints what they return.
"""

__version__ = "0.1.0"
