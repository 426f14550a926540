"""Deploy trained recurrent compression-recognition models as verified ONNX, TensorRT and OpenVINO engines.

The packages, in the order of the data flow::

    data            image files and videos
    models          networks, configurations, presets and checkpoints
    export          checkpoint to ONNX graphs: unroll schedules and uint8 I/O
    graphs          canonical hash, convolutions and passes of any ONNX graph
    quantization    FP16 and INT8 graphs, calibration tables and sensitivity
    bundle          folder with all that a device needs to build engines
    targets         machines that engines are built for
    backends        graph to engine, engine to outputs: PyTorch, ONNX Runtime, OpenVINO, TensorRT
    engines         store of built engines
    codec           code contract and payload
    verification    parity of engines with the checkpoint, and gates
    benchmarking    latency, throughput, memory and energy
    reporting       results as tables, JSON, Markdown and HTML
    packaging       Triton model repository and Kubernetes manifests
    serving         local inference server
    workflow        one function per command, which joins the stages
    cli             the command ``ccr-deploy``
    core            shared basics: records, atomic files, child processes, GPU discovery

Products import `ccr_deploy.runtime`; all exceptions are in `ccr_deploy.errors`.
"""

import os

__version__ = "0.1.0"
CREATED_BY = f"ccr-deploy {__version__}"
"""What this version writes to results as their origin."""

# From 1.29 on, ONNX Runtime sends telemetry on Linux. It reads this variable when it is first imported, so
# the variable is set before any other module of this package is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
