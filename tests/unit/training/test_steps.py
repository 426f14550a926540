"""The trainings, with a tiny model, real crops and few steps of the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from msgspec import structs
from torch.utils.data import default_collate

from ccr_deploy.errors import TrainingError, WrongUsageError
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.checkpoint import build_model, load_checkpoint
from ccr_deploy.models.compressor_file import load_compressor
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.presets import PRESETS, default_preprocessing
from training.data import open as opening
from training.data.batches import Sample
from training.data.open import open_photos
from training.data.photos import load_photos
from training.demo import pretrain_and_finetune
from training.initial_weights import InitialWeights, encoder_weights
from training.loop.options import MachineOptions
from training.loop.saved_state import STATE
from training.loop.trainer import Setting, fit
from training.modules.compressor import CompressorModule
from training.modules.recogniser import RecogniserModule
from training.recipe import Phase, TrainingRecipe
from training.steps import Training, baseline, finetune, pretrain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from ccr_deploy.models.checkpoint import Checkpoint
    from training.modules.module import Batch, TrainingModule
    from training.recipe import Step

PHOTOS = load_photos()[:4]
NAMES = [photo.name for photo in PHOTOS]
PHASE = Phase(epochs=3 / 40, batch=8, learning_rate=5e-3, validations=1)  # an epoch has 40 steps
TINY = ModelConfig(
    image_height=48,
    image_width=48,
    iterations=2,
    encoder=EncoderConfig(stem_channels=4, cell_channels=(4, 8, 16), code_channels=16),
    classifier=ClassifierConfig(cut="layer3", classes=4, stage_channels=(4, 8, 16, 32)),
)


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setattr(opening, "load_photos", lambda: PHOTOS)


@pytest.fixture
def recipe() -> TrainingRecipe:
    return TrainingRecipe(
        description="tiny",
        preset="tiny",
        data="photos",
        iterations=(2,),
        decoder=DecoderConfig(cell_channels=(8, 8, 4, 4)),
        pretrain=PHASE,
        finetune=PHASE,
        baseline=PHASE,
    )


def train_chain(recipe: TrainingRecipe, folder: Path) -> Checkpoint:
    return load_checkpoint(pretrain_and_finetune(recipe, open_photos(48), MachineOptions(), folder))


def training_of(step: Step, recipe: TrainingRecipe, folder: Path) -> Training:
    return Training(step, recipe, open_photos(48), MachineOptions(), folder)


def longer(phase: Phase, steps: int, **changes: float) -> Phase:
    return structs.replace(phase, epochs=steps / 40, **changes)


def first_batch() -> Batch:
    data = open_photos(48)
    images, labels = default_collate([data.training[Sample(index, index)] for index in range(8)])
    return images, labels


def compressor(recipe: TrainingRecipe, iterations: tuple[int, ...] = (2,)) -> CompressorModule:
    config = recipe.chain(classes=4)
    preprocessing = default_preprocessing(config)
    return CompressorModule(
        config.encoder, recipe.decoder, preprocessing, phase=PHASE, steps=3, iterations=iterations
    )


def recogniser(recipe: TrainingRecipe, phase: Phase = PHASE, steps: int = 3) -> RecogniserModule:
    config = recipe.chain(classes=4)
    preprocessing = default_preprocessing(config)
    return RecogniserModule(config, NAMES, preprocessing, phase=phase, steps=steps, iterations=(2,))


def test_two_runs_with_one_seed_give_the_same_weights(recipe: TrainingRecipe, tmp_path: Path) -> None:
    other_seed = structs.replace(recipe, seed=1)
    first, again, other = (
        train_chain(each, tmp_path / name)
        for each, name in ((recipe, "first"), (recipe, "again"), (other_seed, "other"))
    )
    assert first.metrics == again.metrics
    assert first.trained_iterations == (2,)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, again.state_dict[name]), name
    weight = "encoder.stem.weight"
    assert not torch.equal(first.state_dict[weight], other.state_dict[weight])


def test_training_improves_compression_and_recognition(recipe: TrainingRecipe, tmp_path: Path) -> None:
    assert recipe.pretrain is not None
    assert recipe.finetune is not None
    long = structs.replace(
        recipe, pretrain=longer(recipe.pretrain, 60), finetune=longer(recipe.finetune, 150)
    )
    metrics = train_chain(long, tmp_path / "long").metrics
    assert metrics["top1_percent"] > 38  # chance: 25
    assert metrics["top5_percent"] == 100  # of four classes
    short = pretrain(training_of("pretrain", recipe, tmp_path / "short"))
    assert short is not None
    after = load_compressor(tmp_path / "long" / "pretrained" / "compressor.pt").metrics
    assert after["l1"] < 0.9 * load_compressor(short).metrics["l1"]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
@pytest.mark.parametrize("make", [compressor, recogniser])
def test_losses_fall_on_a_repeated_batch(
    make: Callable[[TrainingRecipe], TrainingModule], recipe: TrainingRecipe
) -> None:
    torch.manual_seed(0)
    module, batch = make(recipe), first_batch()
    optimiser = torch.optim.AdamW(module.parameters(), lr=5e-3)
    losses = []
    for _ in range(80):
        loss = module.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")
@pytest.mark.parametrize("make", [compressor, recogniser])
def test_gradients_reach_the_whole_encoder_through_the_binarizer(
    make: Callable[[TrainingRecipe], TrainingModule], recipe: TrainingRecipe
) -> None:
    module = make(recipe)
    module.training_step(first_batch(), 0).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("frozen_share", "encoder_changes"), [(1.0, False), (0.5, True)])
def test_the_encoder_is_frozen_in_the_last_steps(
    frozen_share: float, encoder_changes: bool, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    phase = longer(PHASE, 4, frozen_share=frozen_share)
    module = recogniser(recipe, phase, steps=4)
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    fit(module, Setting(open_photos(48), phase, 0, MachineOptions(), tmp_path))
    after = module.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not module.model.encoder.training
    assert module.model.classifier.training
    assert "classifier.fc.weight" in changed
    assert ("encoder.stem.weight" in changed) == encoder_changes


def test_each_batch_draws_one_of_several_iterations(recipe: TrainingRecipe) -> None:
    module = compressor(recipe, iterations=(1, 2, 4))
    drawn = []
    for seed in range(40):
        torch.manual_seed(seed)
        drawn.append(module.draw_iterations())
        torch.manual_seed(seed)
        assert module.draw_iterations() == drawn[-1]
    assert set(drawn) == {1, 2, 4}


def test_a_checkpoint_records_every_iterations_it_was_trained_with(
    recipe: TrainingRecipe, tmp_path: Path
) -> None:
    checkpoint = train_chain(structs.replace(recipe, iterations=(1, 3)), tmp_path)
    assert checkpoint.trained_iterations == (1, 3)
    assert checkpoint.config.iterations == 3  # the preset's is not trained, so the largest


def test_finetuning_starts_with_the_encoder_of_the_compressor(recipe: TrainingRecipe, tmp_path: Path) -> None:
    path = pretrain(training_of("pretrain", recipe, tmp_path / "pretrained"))
    assert path is not None
    frozen = structs.replace(recipe, finetune=longer(PHASE, 2, frozen_share=1.0))
    result = finetune(training_of("finetune", frozen, tmp_path / "finetuned"), encoder_weights([path]))
    assert result is not None
    trained = load_checkpoint(result).state_dict
    for name, tensor in load_compressor(path).state_dict.items():
        if name.startswith("encoder."):
            assert torch.equal(trained[name], tensor), name


def test_the_baseline_is_trained_from_a_compressor(recipe: TrainingRecipe, tmp_path: Path) -> None:
    path = pretrain(training_of("pretrain", recipe, tmp_path / "pretrained"))
    assert path is not None
    frozen = structs.replace(recipe, baseline=longer(PHASE, 2, frozen_share=1.0))
    training = training_of("baseline", frozen, tmp_path / "baseline")
    result = baseline(training, load_compressor(path))
    assert result is not None
    checkpoint = load_checkpoint(result)
    assert checkpoint.config.is_baseline
    assert checkpoint.class_names == tuple(NAMES)
    for name, tensor in load_compressor(path).state_dict.items():
        assert torch.equal(checkpoint.state_dict[name], tensor), name
    assert build_model(checkpoint)(torch.zeros(1, 3, 48, 48)).shape == (1, 4)


def test_a_finished_training_is_not_repeated(recipe: TrainingRecipe, tmp_path: Path) -> None:
    training = training_of("pretrain", recipe, tmp_path)
    path = pretrain(training)
    assert path is not None
    before = path.stat()
    assert pretrain(training) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not (tmp_path / STATE).exists()


def test_a_folder_keeps_the_recipe_that_it_was_started_with(recipe: TrainingRecipe, tmp_path: Path) -> None:
    pretrain(training_of("pretrain", recipe, tmp_path))
    changed = structs.replace(recipe, pretrain=structs.replace(PHASE, learning_rate=1e-3))
    with pytest.raises(WrongUsageError, match=r"run\.json.*phase\.learning_rate = 0\.005, not 0\.001"):
        pretrain(training_of("pretrain", changed, tmp_path))
    unrelated = structs.replace(recipe, finetune=structs.replace(PHASE, learning_rate=1e-3))
    assert pretrain(training_of("pretrain", unrelated, tmp_path)) is not None


def test_weights_that_do_not_fit_leave_the_folder_free(recipe: TrainingRecipe, tmp_path: Path) -> None:
    training = training_of("finetune", recipe, tmp_path / "finetuned")
    with pytest.raises(WrongUsageError, match="not a ResNet-18"):
        finetune(training, resnet=InitialWeights("other.pth", {"weight": torch.zeros(1)}))
    assert finetune(training) is not None


def test_a_baseline_with_several_iterations_is_refused(recipe: TrainingRecipe, tmp_path: Path) -> None:
    several = structs.replace(recipe, iterations=(2, 3))
    with pytest.raises(WrongUsageError, match="T=2, 3: a baseline is trained with one T"):
        baseline(training_of("baseline", several, tmp_path))


def test_a_lightning_checkpoint_loads_without_arguments(recipe: TrainingRecipe, tmp_path: Path) -> None:
    module = recogniser(recipe)
    fit(module, Setting(open_photos(48), PHASE, 0, MachineOptions(save_every=3), tmp_path))
    checkpoint = load_checkpoint(tmp_path / STATE)
    assert checkpoint.config == recipe.chain(classes=4)
    assert checkpoint.trained_iterations == (2,)
    assert checkpoint.class_names == tuple(NAMES)
    images, _ = first_batch()
    module.eval()
    with torch.inference_mode():
        expected = module(images)
        loaded = build_model(checkpoint)(normalise(images, checkpoint.preprocessing))
    assert torch.equal(loaded, expected)


class Explodes(RecogniserModule):
    """Its loss is not a number from the fourth step on."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if batch_idx >= 3 else loss


def test_a_loss_that_is_not_a_number_ends_the_training_and_keeps_the_state(
    recipe: TrainingRecipe, tmp_path: Path
) -> None:
    config = recipe.chain(classes=4)
    phase = longer(PHASE, 8)
    module = Explodes(config, NAMES, default_preprocessing(config), phase=phase, steps=8, iterations=(2,))
    options = MachineOptions(save_every=2, log_every=1)
    with pytest.raises(TrainingError, match=r"loss is nan at step 4.*state\.ckpt has the state of step 2"):
        fit(module, Setting(open_photos(48), phase, 0, options, tmp_path))
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["state_dict"].values())


class EvaluatedClassifier(RecogniserModule):
    """Its batch norms use their running statistics, which do not depend on the batch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.model.classifier.eval()
        return super().training_step(batch, batch_idx)


def test_micro_batches_give_the_gradients_of_the_whole_batch(recipe: TrainingRecipe, tmp_path: Path) -> None:
    config = recipe.chain(classes=4)
    phase = longer(PHASE, 2, frozen_share=1.0)  # with the bits of evaluation
    weights = []
    for micro_batch in (8, 2):
        torch.manual_seed(0)
        module = EvaluatedClassifier(
            config, NAMES, default_preprocessing(config), phase=phase, steps=2, iterations=(2,)
        )
        options = MachineOptions(micro_batch=micro_batch)
        fit(module, Setting(open_photos(48), phase, 0, options, tmp_path))
        weights.append(module.model.classifier.fc.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
