"""Python source that runs a graph with ONNX Runtime alone, as this project's backend does."""

from __future__ import annotations

_SOURCE = '''\
import onnxruntime


def run(graph, inputs):
    """Run a graph with ONNX Runtime on a CPU; return its outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    {settings}
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))
'''

NODE_BY_NODE = _SOURCE.format(
    settings="options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL"
)
"""Runs a graph node by node, without optimizations."""


def session_source(disabled_optimizers: tuple[str, ...]) -> str:
    """Return source that runs a graph with ONNX Runtime's optimizations except some."""
    disabled = ";".join(disabled_optimizers)
    name = "optimization.disable_specified_optimizers"
    return _SOURCE.format(settings=f'options.add_session_config_entry("{name}", "{disabled}")')
