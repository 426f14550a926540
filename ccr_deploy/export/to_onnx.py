"""PyTorch module to a clean ONNX graph."""

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
"""The newest that TensorRT 8.6's parser reads."""

BATCH = "batch"
"""The name of the symbolic batch dimension."""


def to_onnx(
    module: nn.Module, example: Tensor, input_name: str, output_name: str, *, share_repeated_work: bool = True
) -> ir.Model:
    """Exports a module of one input and one output, both batched in the first dimension.

    `example` gives the input's type and shape ``[2, …]``; its batch of 2 stands for any.
    """
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            optimize=False,
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
    """Holds back the exporter's remarks about its own versions and conversions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
