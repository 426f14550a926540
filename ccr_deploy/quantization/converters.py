"""The converter of each precision. FP32 and BF16 engines are built from FP32 graphs and need none."""

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
"""Take an FP32 graph and inputs to run it on, and return the converted graph; used by `export`."""

CALIBRATED_CONVERTERS: Mapping[Precision, CalibratedConverter] = {"int8": to_int8}
"""Take a stage, its FP32 and FP16 graphs, its ranges, and the layers to keep in high precision."""
