"""Both training steps, with a tiny model, real crops and few optimizer steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from ccr_deploy.models.chain import normalise
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.presets import default_preprocessing
from training.compressor import CompressorModule
from training.data import textures
from training.data.image_folder import ImageFolder
from training.evaluation import TestImages, evaluate
from training.recipe import Phase, TrainingRecipe
from training.recogniser import RecogniserModule
from training.train import train

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

PHOTOS = textures.load_photos()[:4]
NAMES = [photo.name for photo in PHOTOS]
MODEL = ModelConfig(
    image_height=48,
    image_width=48,
    iterations=2,
    encoder=EncoderConfig(stem_channels=4, cell_channels=(4, 8, 16), code_channels=16),
    classifier=ClassifierConfig(cut="layer3", classes=len(PHOTOS), stage_channels=(4, 8, 16, 32)),
)
RECIPE = TrainingRecipe(
    model=MODEL,
    preprocessing=default_preprocessing(MODEL),
    decoder=DecoderConfig(cell_channels=(8, 8, 4, 4)),
    pretraining=Phase(steps=3, learning_rate=5e-3),
    training=Phase(steps=3, learning_rate=5e-3),
    batch=8,
)


def crops(seed: int = 0) -> textures.TrainingCrops:
    return textures.TrainingCrops(PHOTOS, 48, RECIPE.batch, seed)


def trained(recipe: TrainingRecipe) -> Checkpoint:
    return train(recipe, crops(recipe.seed), textures.TestCrops(PHOTOS, 48), NAMES)


def compressor() -> CompressorModule:
    return CompressorModule(MODEL, RECIPE.decoder, RECIPE.preprocessing, RECIPE.pretraining)


def recogniser(encoder_weights: dict[str, torch.Tensor] | None = None) -> RecogniserModule:
    return RecogniserModule(MODEL, RECIPE.preprocessing, NAMES, RECIPE.training, encoder_weights)


def fit(module: RecogniserModule, steps: int) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(crops(), batch_size=None))
    return trainer


def test_two_runs_with_one_seed_give_the_same_weights() -> None:
    first, again, other = trained(RECIPE), trained(RECIPE), trained(replace(RECIPE, seed=1))
    assert first.metrics == again.metrics
    assert first.trained_iterations == (MODEL.iterations,)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, again.state_dict[name]), name
    weight = "encoder.stem.weight"
    assert not torch.equal(first.state_dict[weight], other.state_dict[weight])


def test_training_improves_compression_and_recognition() -> None:
    short = trained(RECIPE)
    pretraining, training = replace(RECIPE.pretraining, steps=60), replace(RECIPE.training, steps=150)
    long = trained(replace(RECIPE, pretraining=pretraining, training=training))
    assert long.metrics["pretraining_l1"] < 0.9 * short.metrics["pretraining_l1"]
    assert long.metrics["top1_percent"] > 45  # chance: 25
    assert long.metrics["top5_percent"] == 100  # of four classes


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
def test_losses_fall_on_a_repeated_batch() -> None:
    torch.manual_seed(0)
    batch = next(iter(crops()))
    for module in (compressor(), recogniser()):
        optimiser = torch.optim.AdamW(module.parameters(), lr=5e-3)
        losses = []
        for _ in range(40):
            loss = module.training_step(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
@pytest.mark.parametrize("make", [compressor, recogniser])
def test_gradients_reach_the_whole_encoder_through_the_binarizer(make: type) -> None:
    module = make()
    batch = next(iter(crops()))
    module.training_step(batch).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_encoder_is_frozen_in_the_last_steps() -> None:
    changed = {}
    for frozen_share in (1.0, 0.5):
        phase = replace(RECIPE.training, steps=4, frozen_share=frozen_share)
        module = RecogniserModule(MODEL, RECIPE.preprocessing, NAMES, phase)
        before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
        fit(module, phase.steps)
        after = module.model.state_dict()
        changed[frozen_share] = {name for name in after if not torch.equal(after[name], before[name])}
        assert not module.model.encoder.training
        assert module.model.classifier.training
    assert "classifier.fc.weight" in changed[1.0]
    assert not [name for name in changed[1.0] if name.startswith("encoder.")]
    assert "encoder.stem.weight" in changed[0.5]


def test_the_second_step_starts_with_the_encoder_of_the_first() -> None:
    encoder = compressor().encoder.state_dict()
    model = recogniser(encoder).model.encoder.state_dict()
    assert all(torch.equal(tensor, model[name]) for name, tensor in encoder.items())


def test_a_lightning_checkpoint_loads_without_arguments(tmp_path: Path) -> None:
    module = recogniser()
    fit(module, 2).save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint.config == MODEL
    assert checkpoint.trained_iterations == (2,)
    assert checkpoint.preprocessing == RECIPE.preprocessing
    assert checkpoint.class_names == tuple(NAMES)
    images, _ = next(iter(crops()))
    module.eval()
    with torch.inference_mode():
        expected = module(images)
        loaded = build_model(checkpoint)(normalise(images, checkpoint.preprocessing))
    assert torch.equal(loaded, expected)


def test_a_folder_of_images_can_be_trained_and_evaluated_on(tmp_path: Path) -> None:
    textures.write_test_images(PHOTOS, 48, tmp_path)
    arguments = (tmp_path, MODEL, RECIPE.preprocessing, NAMES)
    training = DataLoader(ImageFolder(*arguments, augment=True), batch_size=8, shuffle=True)
    test = DataLoader(ImageFolder(*arguments, augment=False), batch_size=100)
    checkpoint = train(RECIPE, training, test, NAMES)
    images = ImageFolder(*arguments, augment=False)
    evaluation = evaluate(checkpoint, TestImages("photos", images, images.groups))
    (accuracy,) = evaluation.per_iteration
    assert accuracy.top1_percent == pytest.approx(checkpoint.metrics["top1_percent"], abs=1e-3)
    assert accuracy.top1_interval_percent.low <= accuracy.top1_percent <= accuracy.top1_interval_percent.high
    assert evaluation.images == 4 * 80
    assert evaluation.groups == sum(len(photo.test_regions) for photo in PHOTOS)
