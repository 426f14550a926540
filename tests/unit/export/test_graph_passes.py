"""Splits of a batch and means over images, in exported graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from ccr_deploy.export.to_onnx import to_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir


class Module(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


def operators(function: Callable[[Tensor], Tensor]) -> dict[str, ir.Node]:
    model = to_onnx(Module(function), torch.zeros(2, 3, 5, 7), "image", "result")
    return {node.op_type: node for node in model.graph}


def test_a_batch_of_iterations_is_split_once() -> None:
    def parts(image: Tensor) -> Tensor:
        first, second, third = torch.cat([image, image + 1, image + 2]).unflatten(0, (3, -1)).unbind(0)
        return first * second - third

    found = operators(parts)
    assert found["Split"].attributes.get_int("num_outputs") == 3
    assert found.keys() == {"Add", "Concat", "Split", "Mul", "Sub"}


def test_a_batch_whose_parts_are_not_all_used_stays() -> None:
    found = operators(lambda image: torch.cat([image, image + 1]).unflatten(0, (2, -1)).unbind(0)[1])
    assert "Split" not in found


def test_a_mean_over_rows_and_columns_is_a_pooling() -> None:
    found = operators(nn.AdaptiveAvgPool2d(1))
    assert list(found) == ["AveragePool"]
    assert found["AveragePool"].attributes.get_ints("kernel_shape") == (5, 7)


@pytest.mark.parametrize(
    "mean", [lambda image: image.mean((2, 3)), lambda image: image.mean((1, 2), keepdim=True)]
)
def test_other_means_stay(mean: Callable[[Tensor], Tensor]) -> None:
    assert list(operators(mean)) == ["ReduceMean"]
