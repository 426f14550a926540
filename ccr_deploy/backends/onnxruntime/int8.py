"""Work-arounds for three defects of ONNX Runtime's INT8 on a CPU.

- Before 1.30, QuantizeLinear truncates FP16 values instead of rounding them to the nearest integer
  (onnxruntime issue 18576). Half of a graph's integers are then one too small, and the demo's encoder flips
  1.9 % of its bits instead of 0.6 %. QuantizeLinear of FP32 values rounds correctly.
- The optimizer WeightBiasQuantization quantizes biases in the type of the scales. In FP16, a bias divided by
  the product of two scales overflows, and the smallest cosine of a classifier's logits drops to -0.4.
  Observed in 1.24 to 1.32.
- Since 1.25, the optimizer QDQS8ToU8Transformer, which converts signed to unsigned integers for x86, adds a
  weight that several operators share once per operator. ONNX Runtime rejects the second copy and cannot load
  the graph. Without that optimizer, no convolution of signed integers is executed in INT8 on x86; with FP16
  scales none is executed in INT8 in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS_FP16_SINCE = (1, 30)
_REFUSES_SHARED_WEIGHTS_SINCE = (1, 25)


def truncates_fp16(version: str) -> bool:
    """Return whether this version of ONNX Runtime truncates FP16 values when it quantizes them."""
    return version_numbers(version) < _ROUNDS_FP16_SINCE


def broken_optimizers(version: str) -> tuple[str, ...]:
    """Return the optimizers that must be disabled for INT8 graphs in this version of ONNX Runtime."""
    if version_numbers(version) < _REFUSES_SHARED_WEIGHTS_SINCE:
        return ("WeightBiasQuantization",)
    return ("WeightBiasQuantization", "QDQS8ToU8Transformer")


def read_rounding_graph(graph: Path, version: str) -> bytes:
    """Read an INT8 graph; change it to quantize FP16 values in FP32 if ONNX Runtime does not round FP16.

    Args:
        graph: the ONNX file.
        version: the version of ONNX Runtime.

    Raises:
        EngineError: if the graph has to be changed and onnx-ir is not installed.
    """
    if not truncates_fp16(version):
        return graph.read_bytes()
    try:
        import onnx_ir

        from ccr_deploy.graphs.passes import QuantizeInFp32Pass
    except ImportError:
        raise EngineError(
            f"{graph}: ONNX Runtime {version} computes the INT8 graph wrongly: before 1.30 it truncates FP16 "
            "values: pip install 'onnxruntime>=1.30', or onnx-ir to work around it, or build FP32"
        ) from None
    model = onnx_ir.load(graph)
    QuantizeInFp32Pass()(model)
    return onnx_ir.to_proto(model).SerializeToString()
