"""Export checkpoints to bundles of ONNX graphs: unroll schedules, uint8 I/O, graph clean-up."""

from importlib.util import find_spec

from ccr_deploy.errors import MissingExtraError

for _package in ("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "safetensors"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "export", "reading and exporting checkpoints")
