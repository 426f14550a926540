"""Which converter makes the graphs of a precision; FP32 and BF16 engines need none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.quantization.fp16 import to_fp16
from ccr_deploy.quantization.int8 import to_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import onnx_ir as ir

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import ChainStage
    from ccr_deploy.quantization.table import StageTable

    Converter = Callable[[ir.Model, Arrays], ir.Model]
    CalibratedConverter = Callable[[ChainStage, ir.Model, ir.Model, StageTable, Collection[str]], ir.Model]

CONVERTERS: Mapping[Precision, Converter] = {"fp16": to_fp16}
"""From an FP32 graph, which they may run on the given inputs; `export` uses them."""

CALIBRATED_CONVERTERS: Mapping[Precision, CalibratedConverter] = {"int8": to_int8}
"""From a stage, its FP32 graph, its FP16 sibling, its ranges, and the layers to leave in high precision."""
