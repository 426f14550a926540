"""A matrix product in OpenVINO, by which the matrix rate of a CPU is measured in every precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ccr_deploy.backends.openvino.cpu import OpenVinoBackend, OpenVinoOptions, import_openvino

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.core.precisions import EnginePrecision

_STEPS = 63
"""The largest INT8 weight: 7 bits, with which every processor computes correctly and equally fast."""


def openvino_product(precision: EnginePrecision, threads: int, size: int) -> Callable[[], object]:
    """Compile the product of two square matrices, of which the second is constant; return how to run it.

    Args:
        precision: the precision to compute in.
        threads: the number of threads.
        size: rows and columns of the matrices.

    Raises:
        MissingExtraError: if OpenVINO is not installed.
        EngineError: if OpenVINO does not support the precision on this processor.
    """
    openvino = import_openvino()
    from openvino import opset13 as operators

    backend = OpenVinoBackend(OpenVinoOptions(threads=threads))
    backend.check_precision(precision)
    integers = np.random.default_rng(0).integers(-_STEPS, _STEPS + 1, (size, size)).astype(np.float32)
    data = operators.parameter([size, size], np.float32, name="data")
    factors = [data, operators.constant(integers / _STEPS)]
    if precision == "int8":  # OpenVINO computes a product in INT8 if both factors are quantized
        factors = [
            operators.fake_quantize(factor, low, high, low, high, levels)
            for factor, low, high, levels in (
                (factors[0], np.float32(0), np.float32(255), 256),
                (factors[1], np.float32(-1), np.float32(1), 2 * _STEPS + 1),
            )
        ]
    product = operators.matmul(*factors, transpose_a=False, transpose_b=False)
    compiled = backend.compile_model(openvino.Model([product], [data]), precision)
    request = compiled.create_infer_request()
    inputs = [np.abs(integers)]
    # Without copies of the output, which would take a tenth of the time.
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)
