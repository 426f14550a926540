"""The packed networks compute what the reference computes; on a GPU, in FP16 and as a CUDA graph."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ccr_deploy.errors import EngineError
from tests.support.networks import PREPROCESSING, codes, images, stage_network

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.core.stages import Stage

CPU = torch.device("cpu")
SCHEDULES = ("iteration-major", "layer-major")


def reference(stage: Stage, feeds: dict[str, npt.NDArray[np.uint8]]) -> npt.NDArray[np.generic]:
    from ccr_deploy.backends.pytorch.options import PyTorchOptions
    from ccr_deploy.backends.pytorch.runner import PyTorchRunner

    (output,) = PyTorchRunner(stage_network(stage), PyTorchOptions()).infer(feeds).values()
    return output


def test_the_networks_codes_depend_on_the_image() -> None:
    first, second = (reference("encoder", images(8, seed)) for seed in (1, 2))
    assert np.unpackbits(first ^ second).mean() > 0.1


def packed(stage: Stage, dtype: torch.dtype, schedule: str = "layer-major"):
    from ccr_deploy.backends.pytorch.graph_runner import GraphRunner
    from ccr_deploy.backends.pytorch.packed import packed_network

    made = stage_network(stage)
    network = packed_network(made.network, made.model, PREPROCESSING, dtype=dtype, schedule=schedule)
    return GraphRunner(network, made, CPU)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_codes_in_fp32_are_the_reference_s(schedule: str) -> None:
    expected = reference("encoder", images(16))
    found = packed("encoder", torch.float32, schedule).infer(images(16))
    assert list(found) == ["code"]
    np.testing.assert_array_equal(found["code"], expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_precision_flips_few_bits(schedule: str) -> None:
    """A CPU computes BF16, whose mantissa is shorter than FP16's."""
    expected = reference("encoder", images(16))
    found = packed("encoder", torch.bfloat16, schedule).infer(images(16))["code"]
    flipped = np.unpackbits(found ^ expected).mean()
    assert 0 < flipped < 0.05


def test_the_logits_in_fp32_are_the_reference_s() -> None:
    expected = reference("classifier", codes(8))
    found = packed("classifier", torch.float32).infer(codes(8))
    assert found["logits"].dtype == np.float32
    spread = np.ptp(expected, axis=0).min()  # a wrong code changes the logits by that much
    assert spread > 0.1
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-4 * spread)


def test_logits_of_half_precision_are_float32() -> None:
    expected = reference("classifier", codes(8))
    found = packed("classifier", torch.bfloat16).infer(codes(8))["logits"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected, axis=0).max()


def test_every_batch_norm_is_folded_and_every_weight_is_in_channels_last() -> None:
    network = packed("classifier", torch.float32)._network
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) > 5
    assert all(
        module.weight.is_contiguous(memory_format=torch.channels_last)
        for module in convolutions
        if module.weight.shape[2] > 1
    )


def test_activations_stay_in_channels_last() -> None:
    """A convolution that gets another layout would transpose its input in every run."""
    network = packed("encoder", torch.float32)._network
    layouts = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, __: layouts.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                )
            )
    with torch.inference_mode():
        network(torch.from_numpy(images(2)["image"]))
    assert len(layouts) > 5
    assert all(layouts)


def test_a_run_does_not_overwrite_the_outputs_of_an_earlier_one() -> None:
    runner = packed("encoder", torch.float32)
    first = runner.infer(images(3))["code"]
    kept = first.copy()
    assert (runner.infer(images(3, seed=9))["code"] != first).any()
    np.testing.assert_array_equal(first, kept)


def test_batch_sizes_alternate() -> None:
    runner = packed("encoder", torch.float32)
    whole = runner.infer(images(4))["code"]
    np.testing.assert_array_equal(runner.infer({"image": images(4)["image"][:1]})["code"], whole[:1])
    np.testing.assert_array_equal(runner.infer(images(4))["code"], whole)


def test_the_network_is_converted_in_place_of_the_given_one() -> None:
    """The reference must be read anew: its weights are changed."""
    from ccr_deploy.backends.pytorch.packed import packed_network

    made = stage_network("encoder")
    before = copy.deepcopy(made.network)
    converted = packed_network(
        made.network, made.model, PREPROCESSING, dtype=torch.float16, schedule="layer-major"
    )
    assert converted.encoder is made.network
    assert next(before.parameters()).dtype == torch.float32
    assert {parameter.dtype for parameter in converted.parameters()} == {torch.float16}
    assert converted.scale.dtype == torch.float32


def test_a_baseline_is_refused() -> None:
    with pytest.raises(EngineError, match="supports encoder and classifier only"):
        packed("baseline", torch.float16)


def test_a_cuda_graph_on_a_cpu_is_refused() -> None:
    from ccr_deploy.backends.options import BackendOptions
    from ccr_deploy.core.field_errors import FieldError
    from ccr_deploy.core.records import convert

    with pytest.raises(FieldError, match='set device = "cuda"'):
        convert(BackendOptions, {"backend": "pytorch", "fp16_cuda_graph": "layer-major"})
