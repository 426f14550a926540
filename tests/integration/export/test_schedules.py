"""Every unroll schedule gives the payloads of PyTorch, which runs iteration by iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from msgspec import structs

from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.stages import SCHEDULES, Schedule
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.export.to_onnx import to_onnx
from ccr_deploy.export.uint8_io import BaselineGraph
from ccr_deploy.export.unroll import UNROLLED, UnrolledBaseline
from ccr_deploy.models.chain import BaselineChain, CcrChain, normalise
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.config import ClassifierConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.presets import preset
from ccr_deploy.verification.measures import TIE_MARGIN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.models.checkpoint import Checkpoint


def pre_binarization(checkpoint: Checkpoint, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the results of the reference: PyTorch, iteration by iteration."""
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    with torch.inference_mode():
        image = normalise(torch.from_numpy(images), checkpoint.preprocessing)
        activations = chain.encoder.pre_binarization(image, checkpoint.config.iterations)
        return activations.numpy().reshape(len(images), -1)


Sessions = Mapping[Schedule, onnxruntime.InferenceSession]


def encoder_session(checkpoint: Checkpoint, schedule: Schedule, folder: Path) -> onnxruntime.InferenceSession:
    chain = build_model(checkpoint)
    assert isinstance(chain, CcrChain)
    path = folder / f"{schedule}.onnx"
    ir.save(stage_graph(chain.encoder, checkpoint.config, checkpoint.preprocessing, schedule), path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def encoder_sessions(
    checkpoint: Checkpoint, folder: Path, schedules: tuple[Schedule, ...] = SCHEDULES
) -> Sessions:
    return {schedule: encoder_session(checkpoint, schedule, folder) for schedule in schedules}


@pytest.fixture(scope="module")
def trained_sessions(trained_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    return encoder_sessions(trained_checkpoint, tmp_path_factory.mktemp("trained"))


def count_flips(
    checkpoint: Checkpoint, images: npt.NDArray[np.uint8], sessions: Sessions
) -> dict[Schedule, int]:
    """Count the flipped bits by schedule; the activation of each must be 0 within rounding."""
    values = pre_binarization(checkpoint, images)
    expected = pack_code(values)
    near_zero = np.abs(values) <= TIE_MARGIN * values.std()
    counts = {}
    for schedule, session in sessions.items():
        batches = [
            session.run(None, {"image": images[start : start + 64]})[0] for start in range(0, len(images), 64)
        ]
        flips = flipped_bits(expected, np.concatenate(batches))
        assert not (flips & ~near_zero).any(), f"{schedule}: a bit flipped that rounding does not explain"
        counts[schedule] = int(flips.sum())
    return counts


def random_images(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_schedules_agree_for_trained_weights_on_a_thousand_real_crops(
    trained_checkpoint: Checkpoint, trained_sessions: Sessions, real_crops: npt.NDArray[np.uint8]
) -> None:
    counts = count_flips(trained_checkpoint, real_crops, trained_sessions)
    print(f"flipped bits of {real_crops.shape[0] * 288}: {counts}")


def test_schedules_agree_for_trained_weights_on_random_images(
    trained_checkpoint: Checkpoint, trained_sessions: Sessions
) -> None:
    count_flips(trained_checkpoint, random_images(64, 48, 48), trained_sessions)


def test_schedules_agree_for_untrained_weights_on_a_thousand_real_crops(
    real_crops: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    checkpoint = untrained_checkpoint(preset("demo"))
    count_flips(checkpoint, real_crops, encoder_sessions(checkpoint, tmp_path))


@pytest.mark.parametrize("iterations", [1, 2, 16])
def test_schedules_agree_for_any_number_of_iterations(iterations: int, tmp_path: Path) -> None:
    config = structs.replace(preset("demo"), iterations=iterations)
    hoisting = tuple(name for name, kind in UNROLLED.items() if kind.shares_repeated_work)
    checkpoint = untrained_checkpoint(config)
    count_flips(checkpoint, random_images(5, 48, 48), encoder_sessions(checkpoint, tmp_path, hoisting))


@pytest.mark.parametrize(("height", "width", "code_channels"), [(16, 16, 8), (32, 80, 24), (96, 48, 64)])
def test_schedules_agree_for_any_image_size_and_width(
    height: int, width: int, code_channels: int, tmp_path: Path
) -> None:
    config = ModelConfig(
        image_height=height,
        image_width=width,
        iterations=4,
        encoder=EncoderConfig(stem_channels=5, cell_channels=(3, 7, 9), code_channels=code_channels),
        classifier=ClassifierConfig(cut="layer1", classes=3, stage_channels=(4, 4, 4, 4)),
    )
    checkpoint = untrained_checkpoint(config)
    count_flips(checkpoint, random_images(3, height, width), encoder_sessions(checkpoint, tmp_path))


def test_a_wrong_weight_is_detected(trained_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The check can fail: a slightly different encoder flips bits that rounding does not explain."""
    images = random_images(8, 48, 48)
    values = pre_binarization(trained_checkpoint, images)
    weights = dict(trained_checkpoint.state_dict)
    weights["encoder.cells.1.hidden_conv.weight"] = weights["encoder.cells.1.hidden_conv.weight"] * 1.2
    other = replace(trained_checkpoint, state_dict=weights)
    codes = encoder_session(other, "layer-major", tmp_path).run(None, {"image": images})[0]
    flips = flipped_bits(pack_code(values), codes)
    assert (flips & (np.abs(values) > TIE_MARGIN * values.std())).any()


def test_the_baseline_gives_the_results_of_pytorch(tiny_baseline: Checkpoint, tmp_path: Path) -> None:
    chain = build_model(tiny_baseline)
    assert isinstance(chain, BaselineChain)
    config = tiny_baseline.config
    example = torch.zeros(2, config.image_height, config.image_width, 3, dtype=torch.uint8)
    model = to_onnx(
        BaselineGraph(UnrolledBaseline(chain), tiny_baseline.preprocessing), example, "image", "logits"
    )
    ir.save(model, tmp_path / "baseline.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "baseline.onnx", providers=["CPUExecutionProvider"])
    images = random_images(6, config.image_height, config.image_width)
    with torch.inference_mode():
        expected = chain(normalise(torch.from_numpy(images), tiny_baseline.preprocessing)).numpy()
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, atol=1e-5)
