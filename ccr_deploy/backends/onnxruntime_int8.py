"""A defect of ONNX Runtime's INT8 on a CPU, and the way around it.

Before 1.30 its QuantizeLinear of FP16 values cut the fraction off instead of rounding to the nearest integer
(onnxruntime issue 18576): half of a graph's integers are one too small, and an encoder of the demo's kind
flips 1.9 % of its bits instead of 0.6 %. The same operator of FP32 values rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import EngineError
from ccr_deploy.versions import version_numbers

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS_FP16_SINCE = (1, 30)


def truncates_fp16(version: str) -> bool:
    """Tell whether an ONNX Runtime of this version cuts fractions off when it quantizes FP16 values."""
    return version_numbers(version) < _ROUNDS_FP16_SINCE


def graph_that_rounds(graph: Path, version: str) -> bytes:
    """Read an INT8 graph and have its FP16 values quantized in FP32.

    Args:
        graph: the ONNX file.
        version: ONNX Runtime's, for the message.

    Raises:
        EngineError: onnx-ir is not installed.
    """
    try:
        import onnx_ir

        from ccr_deploy.graph_passes import QuantizeInFp32Pass
    except ImportError:
        raise EngineError(
            f"{graph}: ONNX Runtime {version} computes the INT8 graph wrongly, since before 1.30 it does not "
            "round: pip install 'onnxruntime>=1.30', or onnx-ir to work around it, or build FP32"
        ) from None
    model = onnx_ir.load(graph)
    QuantizeInFp32Pass()(model)
    return onnx_ir.to_proto(model).SerializeToString()
