"""The clipped share of activations, against that of the calibration images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.quantization.clipping import (
    LEAST_LIMIT_PERCENT,
    LIMIT_RATIO,
    ClippedShares,
    clipping_limits,
    compare_with_calibration,
    with_counts,
    worst_first,
)
from ccr_deploy.quantization.quantizers import quantized_activations
from ccr_deploy.quantization.table import StageTable, TensorRange
from ccr_deploy.workflow.graphs import load_model, model_runner

if TYPE_CHECKING:
    import onnx_ir as ir

    from ccr_deploy.bundle.reader import Bundle

IMAGES = np.random.default_rng(5).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder(tiny_bundle: Bundle) -> ir.Model:
    return load_model(tiny_bundle, tiny_bundle.graph("encoder", "fp32", "iteration-major"))


def table_of(model: ir.Model, **changed: TensorRange) -> StageTable:
    ranges = {name: TensorRange(low=-0.1, high=0.1, method="minmax") for name in quantized_activations(model)}
    return StageTable(tensors={**ranges, **changed})


def shares(model: ir.Model, limits: dict[str, float], *batches: np.ndarray) -> dict[str, float]:
    found = ClippedShares(limits)
    with model_runner(with_counts(model, limits)) as runner:
        for batch in batches:
            found.add(runner.infer({"image": batch}))
    return found.percent()


def test_the_share_grows_as_the_limit_falls(encoder: ir.Model) -> None:
    names = list(quantized_activations(encoder))
    found = [shares(encoder, dict.fromkeys(names, limit), IMAGES) for limit in (1e6, 0.05, 0.0)]
    for name in names:
        one, two, three = (entry[name] for entry in found)
        assert one == 0
        assert one <= two <= three
        assert 0 < three <= 100


def test_batches_give_the_same_share_as_all_images_together(encoder: ir.Model) -> None:
    limits = dict.fromkeys(quantized_activations(encoder), 0.05)
    assert shares(encoder, limits, IMAGES[:1], IMAGES[1:]) == shares(encoder, limits, IMAGES)


def test_the_graph_still_returns_the_code(encoder: ir.Model) -> None:
    limits = dict.fromkeys(quantized_activations(encoder), 0.05)
    with model_runner(encoder) as plain, model_runner(with_counts(encoder, limits)) as counted:
        np.testing.assert_array_equal(
            plain.infer({"image": IMAGES})["code"], counted.infer({"image": IMAGES})["code"]
        )


def test_nan_counts_as_clipped(encoder: ir.Model) -> None:
    limits = dict.fromkeys(quantized_activations(encoder), float("nan"))
    assert set(shares(encoder, limits, IMAGES).values()) == {100.0}


def test_all_iterations_share_the_limit_of_the_widest(encoder: ir.Model) -> None:
    wide = TensorRange(low=-3, high=1, method="minmax")
    limits = clipping_limits(encoder, table_of(encoder, **{"cell1/t2/hidden_state": wide}))
    assert (
        limits["cell1/t1/hidden_state"] == limits["cell1/t2/hidden_state"] == pytest.approx(3 * 127.5 / 127)
    )
    assert limits["cell2/t1/hidden_state"] == pytest.approx(0.1 * 127.5 / 127)


def test_layers_in_high_precision_clip_nothing(encoder: ir.Model) -> None:
    everything = clipping_limits(encoder, table_of(encoder))
    assert clipping_limits(encoder, table_of(encoder), ["cell1/hidden_conv"]).keys() <= everything.keys()
    every_layer = {str(node.name).split("/t")[0] for node in encoder.graph}
    assert len(clipping_limits(encoder, table_of(encoder), every_layer)) < len(everything)


@pytest.mark.parametrize(
    ("method", "recorded", "expected"),
    [
        ("percentile 99.9", 0.2, 0.2),
        ("percentile 99.9", None, 0.1),  # tables of earlier versions
        ("minmax", None, 0.0),
        ("entropy", None, None),
    ],
)
def test_the_limit_follows_the_calibration_images(
    method: str, recorded: float | None, expected: float | None
) -> None:
    entry = TensorRange(low=-1, high=1, method=method, clipped_percent=recorded)
    limit = max(LIMIT_RATIO * (expected or 0), LEAST_LIMIT_PERCENT)
    for found, is_over in ((limit, False), (limit + 0.01, True)):
        (result,) = compare_with_calibration("encoder", {"stem": found}, StageTable(tensors={"stem": entry}))
        assert result.calibration_clipped_percent == pytest.approx(expected)
        assert result.limit_percent == pytest.approx(limit)
        assert result.is_over == is_over


def test_the_tensor_that_is_furthest_over_its_limit_is_the_first() -> None:
    tensors = {
        "a": TensorRange(low=-1, high=1, method="minmax", clipped_percent=0.0),
        "b": TensorRange(low=-1, high=1, method="percentile 99", clipped_percent=1.0),
    }
    found = compare_with_calibration("encoder", {"b": 8.0, "a": 2.0}, StageTable(tensors=tensors))
    assert [entry.tensor for entry in worst_first(found)] == ["a", "b"]
