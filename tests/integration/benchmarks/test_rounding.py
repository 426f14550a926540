"""Rounding and biases that are chosen from calibration images, on a trained encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.rounding import adapt_rounding, correct_biases, rounded, without_rounded_weights
from ccr_deploy.graphs.activations import with_outputs
from ccr_deploy.graphs.passes import StoreInt8WeightsPass
from ccr_deploy.quantization.int8 import quantize, without_quantization
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.calibration_check import table_of
from ccr_deploy.workflow.graphs import load_model, model_runner

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from tests.support.demo import CalibratedDemo

FIRST = "cell2/t1/input_conv"
"""The first quantized convolution: all encoders here give it the same inputs."""


@pytest.fixture(scope="module")
def encoders(calibrated_demo: CalibratedDemo) -> tuple[ir.Model, ir.Model]:
    """The demo's encoder in FP32, and with INT8 convolutions."""
    bundle = calibrated_demo.bundle
    table, _ = table_of(bundle)
    fp32 = load_model(bundle, CalibratedGraphs(bundle).calibration_graph("encoder"))
    int8 = without_quantization(quantize("encoder", fp32, table.stages["encoder"]), table.high_precision)
    StoreInt8WeightsPass()(int8)
    return fp32, int8


def output(model: ir.Model, name: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    with model_runner(with_outputs(model, [name])) as runner:
        return runner.infer({"image": images})[name]


def test_inputs_that_do_not_correlate_give_the_nearest_integers() -> None:
    rows = np.random.default_rng(0).uniform(-127, 127, (4, 9))
    assert (rounded(rows, np.eye(9)) == np.rint(rows)).all()


def test_integers_stay_within_int8() -> None:
    assert (rounded(np.array([[127.9, -200.0]]), np.eye(2)) == [[127, -128]]).all()


def test_correlated_inputs_give_integers_with_a_smaller_output_error() -> None:
    generator = np.random.default_rng(0)
    rows = generator.uniform(-5, 5, (16, 12))
    inputs = generator.normal(size=(12, 1)) + 0.1 * generator.normal(size=(12, 500))
    moments = inputs @ inputs.T

    def error(integers: npt.NDArray[np.generic]) -> float:
        return float((((integers - rows) @ inputs) ** 2).mean())

    assert error(rounded(rows, moments)) < error(np.rint(rows)) / 4


@pytest.mark.parametrize("towards_fp32", [False, True])
def test_adaptive_rounding_brings_outputs_closer_to_fp32_on_other_images(
    encoders: tuple[ir.Model, ir.Model], real_crops: npt.NDArray[np.uint8], towards_fp32: bool
) -> None:
    fp32, int8 = encoders
    adapted = adapt_rounding(int8, fp32, real_crops[::10], towards_fp32=towards_fp32)
    exact = without_rounded_weights(int8, fp32)
    wanted, plain, found = (output(model, FIRST, real_crops[5::10]) for model in (exact, int8, adapted))
    assert ((found - wanted) ** 2).mean() < ((plain - wanted) ** 2).mean()


def test_corrected_biases_remove_mean_errors(
    encoders: tuple[ir.Model, ir.Model], real_crops: npt.NDArray[np.uint8]
) -> None:
    fp32, int8 = encoders
    images = real_crops[::10]
    corrected = correct_biases(int8, fp32, images)

    def mean_error(model: ir.Model) -> float:
        names = [f"cell2/t{t}/input_conv" for t in (1, 2, 3)]
        errors = np.stack([output(model, name, images) - output(fp32, name, images) for name in names])
        return float(np.abs(errors.mean(axis=(0, 1, 3, 4))).max())

    assert mean_error(corrected) < mean_error(int8) / 2


def test_without_rounded_weights_the_first_layer_has_the_weights_of_fp32(
    encoders: tuple[ir.Model, ir.Model], real_crops: npt.NDArray[np.uint8]
) -> None:
    fp32, int8 = encoders
    images = real_crops[::40]
    exact = output(without_rounded_weights(int8, fp32), FIRST, images)
    # Its inputs are rounded still.
    assert 0 < np.abs(exact - output(fp32, FIRST, images)).max() < np.abs(exact).max() / 50
