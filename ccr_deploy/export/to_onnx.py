"""Export a PyTorch module to a clean ONNX graph."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ccr_deploy.export.cleanup import clean_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from torch import Tensor, nn

OPSET = 18
"""The lowest opset that torch's exporter writes without a conversion, for the oldest parsers.

TensorRT 10.0 and later support it: 10.0 documents opset 20 as its newest. TensorRT 8.6 documents opset 17.
Its parser ignores the input ``axes`` of ReduceMean, an attribute up to opset 17, so that 8.6 is not expected
to build the classifier and the baseline. This was not tested.
"""

BATCH = "batch"
"""The name of the symbolic batch dimension."""


def to_onnx(
    module: nn.Module, example: Tensor, input_name: str, output_name: str, *, share_repeated_work: bool = True
) -> ir.Model:
    """Export a module with one input and one output, whose first dimension is the batch.

    Args:
        module: the module.
        example: an input of the right type and shape ``[2, …]``. The graph accepts any batch size.
        input_name: the name of the graph's input.
        output_name: the name of the graph's output.
        share_repeated_work: merge equal computations.
    """
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            optimize=False,  # `clean_up` optimizes, with passes of our choice
            verbose=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
        )
    assert program is not None
    model = program.model
    clean_up(model, share_repeated_work=share_repeated_work)
    return model


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings about its own versions and conversions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
