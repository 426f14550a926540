"""Triton's backend ``onnxruntime`` in Python, for a server that was built without the real one.

Like the real one, it reads the graph in the version's folder, and the inputs, outputs and
`intra_op_thread_count` in the model's configuration. Each call of `execute` runs the graph once, on all
requests that Triton's dynamic batching combined.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One model, with the interface that Triton's Python backend requires."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph."""
        config = json.loads(args["model_config"])
        graph = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        threads = config["parameters"].get("intra_op_thread_count", {"string_value": "0"})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads["string_value"]) or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests as one batch, and return a response to each."""
        arrays = [triton.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        (results,) = self._session.run([self._output], {self._input: np.concatenate(arrays)})
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor(self._output, result)])
            for result in np.split(results, ends)
        ]
