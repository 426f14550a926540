"""Three defects of ONNX Runtime's INT8 on a CPU, and the ways around them.

- Before 1.30 its QuantizeLinear of FP16 values cut the fraction off instead of rounding to the nearest
  integer (onnxruntime issue 18576): half of a graph's integers are one too small, and an encoder of the
  demo's kind flips 1.9 % of its bits instead of 0.6 %. The same operator of FP32 values rounds.
- Its optimizer WeightBiasQuantization quantizes biases in the type of the scales. In FP16 a bias divided by
  the product of two scales overflows: the smallest cosine of a classifier's logits falls to -0.4. Seen in
  1.24 to 1.32.
- Since 1.25 its optimizer QDQS8ToU8Transformer, which makes integers unsigned for x86, adds weights that
  several operators share once for each of them, and ONNX Runtime refuses the second: it cannot load the
  graph. Without that optimizer it executes no convolution of signed integers in INT8 on x86, as anywhere
  with FP16 scales.
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
    """Tell whether an ONNX Runtime of this version cuts fractions off when it quantizes FP16 values."""
    return version_numbers(version) < _ROUNDS_FP16_SINCE


def broken_optimizers(version: str) -> tuple[str, ...]:
    """Return the optimizers that an ONNX Runtime of this version must not apply to an INT8 graph."""
    if version_numbers(version) < _REFUSES_SHARED_WEIGHTS_SINCE:
        return ("WeightBiasQuantization",)
    return ("WeightBiasQuantization", "QDQS8ToU8Transformer")


def graph_that_rounds(graph: Path, version: str) -> bytes:
    """Read an INT8 graph, and have its FP16 values quantized in FP32 if ONNX Runtime does not round them.

    Args:
        graph: the ONNX file.
        version: ONNX Runtime's.

    Raises:
        EngineError: they must be quantized in FP32, and onnx-ir is not installed.
    """
    if not truncates_fp16(version):
        return graph.read_bytes()
    try:
        import onnx_ir

        from ccr_deploy.graphs.passes import QuantizeInFp32Pass
    except ImportError:
        raise EngineError(
            f"{graph}: ONNX Runtime {version} computes the INT8 graph wrongly, since before 1.30 it does not "
            "round: pip install onnx-ir to work around it, or 'onnxruntime>=1.30', or build FP32"
        ) from None
    model = onnx_ir.load(graph)
    QuantizeInFp32Pass()(model)
    return onnx_ir.to_proto(model).SerializeToString()
