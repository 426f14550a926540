"""The trainings: one function for each command, from a recipe and data to a file that the next one reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import lightning
from msgspec import structs

from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.checkpoint import Checkpoint, save_checkpoint
from ccr_deploy.models.compressor_file import CompressorCheckpoint, save_compressor
from ccr_deploy.models.iterations import named_iterations
from ccr_deploy.models.presets import default_preprocessing
from training.evaluation.accuracy import evaluate
from training.evaluation.restoration import measure_restoration
from training.evaluation.restored_images import ShowRestoredImages, restorer_of
from training.evaluation.results import (
    CHECKPOINT_FILE,
    EVALUATION_FILE,
    GRID_FILE,
    RESTORATION_FILE,
    Evaluation,
    Restoration,
    write_result,
)
from training.initial_weights import EncoderWeights, InitialWeights, load_residual_stages
from training.loop.options import best_device
from training.loop.saved_state import STATE, Run, begin_or_continue
from training.loop.trainer import Setting, fit
from training.modules.baseline import BaselineModule
from training.modules.compressor import CompressorModule
from training.modules.recogniser import RecogniserModule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    from ccr_deploy.core.progress import Progress
    from ccr_deploy.models.config import ModelConfig
    from training.data.open import TrainingData
    from training.loop.options import MachineOptions
    from training.modules.module import TrainingModule
    from training.recipe import Step, TrainingRecipe

COMPRESSOR = "compressor.pt"


@dataclass(frozen=True)
class Training:
    """One training of a recipe.

    Attributes:
        step: which one.
        recipe: the hyperparameters of all trainings of the model.
        data: training and test images.
        options: devices, precision and speed.
        folder: where the result, the state and the logs are written.
        progress: advances by the images that are evaluated at the end.
    """

    step: Step
    recipe: TrainingRecipe
    data: TrainingData
    options: MachineOptions
    folder: Path
    progress: Progress = SILENT

    @property
    def setting(self) -> Setting:
        """All that `training.loop.trainer.fit` needs apart from the module."""
        phase = self.recipe.phase(self.step)
        title = f"{self.step} {self.folder.name}"
        return Setting(self.data, phase, self.recipe.seed, self.options, self.folder, title)

    def begin(self, model: ModelConfig, started_from: Sequence[InitialWeights] = ()) -> None:
        """Record what it is started with, or check that it is the same as before.

        Args:
            model: the configuration of the chain.
            started_from: the weights that it starts from.
        """
        run = Run(
            step=self.step,
            model=model,
            decoder=self.recipe.decoder,
            phase=self.recipe.phase(self.step),
            iterations=self.recipe.iterations,
            seed=self.recipe.seed,
            data=self.data.fingerprint,
            started_from=tuple(weights.fingerprint for weights in started_from),
        )
        begin_or_continue(run, self.folder)

    def seed_weights(self) -> None:
        """Seed the generators, so that a network that is made next has the weights of the recipe's seed."""
        lightning.seed_everything(self.recipe.seed, verbose=False)

    def restored_images(self, iterations: int) -> ShowRestoredImages:
        """Return the callback that writes restored images into the folder."""
        return ShowRestoredImages(self.data.test, iterations, self.folder / GRID_FILE)

    def measure_restoration(self, module: TrainingModule, iterations: int) -> Restoration:
        """Measure the images that a compressor or baseline restores, and write the result."""
        restorer = restorer_of(module.to(best_device()))
        self.restored_images(iterations).write(restorer)
        result = measure_restoration(restorer, self.data.test, iterations, workers=self.options.workers)
        write_result(result, self.folder / RESTORATION_FILE)
        return result

    def fit(self, module: TrainingModule, callbacks: Sequence[Callback] = ()) -> bool:
        """Train a module; return whether this process is the one that writes the result."""
        return fit(module, self.setting, callbacks)


def pretrain(training: Training) -> Path | None:
    """Train a compressor: encoder and decoder, by the residual loop.

    Args:
        training: recipe, data, machine and folder.

    Returns:
        The compressor's file; None in the processes that do not write it.

    Raises:
        WrongUsageError: if the folder is another training's, or the batch cannot be divided.
        TrainingError: if the loss is not a number, or the folder cannot be written.
        ImageError: if an image cannot be used.
    """
    recipe, setting = training.recipe, training.setting
    config = recipe.baseline_chain(len(training.data.class_names))
    training.begin(config)
    path = training.folder / COMPRESSOR
    if path.exists():
        return path
    preprocessing = default_preprocessing(config)
    training.seed_weights()
    module = CompressorModule(
        config.encoder,
        recipe.decoder,
        preprocessing,
        phase=setting.phase,
        steps=setting.steps,
        iterations=recipe.iterations,
    )
    iterations = max(recipe.iterations)
    if not training.fit(module, [training.restored_images(iterations)]):
        return None
    quality = training.measure_restoration(module, iterations)
    save_compressor(
        CompressorCheckpoint(
            config.encoder,
            recipe.decoder,
            recipe.iterations,
            preprocessing,
            module.state_dict(),
            metrics={name: getattr(quality.per_iteration[-1], name) for name in ("l1", "psnr_db", "ms_ssim")},
        ),
        path,
    )
    (training.folder / STATE).unlink(missing_ok=True)
    return path


def finetune(
    training: Training, encoder: EncoderWeights | None = None, resnet: InitialWeights | None = None
) -> Path | None:
    """Train encoder and truncated classifier end to end.

    Args:
        training: recipe, data, machine and folder.
        encoder: configuration and weights of the encoder to start from; its widths replace the recipe's. None
            for random weights.
        resnet: weights of a whole ResNet-18, for the residual stages that are kept; None for random ones.

    Returns:
        The checkpoint's file; None in the processes that do not write it.

    Raises:
        WrongUsageError: if the folder is another training's, the batch cannot be divided, or weights do not
            fit the recipe.
        TrainingError: if the loss is not a number, or the folder cannot be written.
        ImageError: if an image cannot be used.
    """
    recipe, setting = training.recipe, training.setting
    config = recipe.chain(len(training.data.class_names))
    if encoder is not None:
        config = structs.replace(config, encoder=encoder.config)
    training.seed_weights()
    module = RecogniserModule(
        config,
        training.data.class_names,
        default_preprocessing(config),
        phase=setting.phase,
        steps=setting.steps,
        iterations=recipe.iterations,
    )
    if encoder is not None:
        module.model.encoder.load_state_dict(dict(encoder.state_dict))
    if resnet is not None:
        load_residual_stages(module.model.classifier, resnet)
    training.begin(config, [weights for weights in (encoder, resnet) if weights is not None])
    return _recognise(training, module)


def baseline(
    training: Training,
    compressor: CompressorCheckpoint | None = None,
    resnet: InitialWeights | None = None,
) -> Path | None:
    """Train the conventional chain end to end: encoder, decoder and whole ResNet-18.

    Args:
        training: recipe, data, machine and folder.
        compressor: encoder and decoder to start from, whose widths replace the recipe's; None for random
            weights.
        resnet: weights of a whole ResNet-18 to start from; None for random ones.

    Returns:
        The checkpoint's file; None in the processes that do not write it.

    Raises:
        WrongUsageError: if the folder is another training's, the batch cannot be divided, or weights do not
            fit the recipe.
        TrainingError: if the loss is not a number, or the folder cannot be written.
        ImageError: if an image cannot be used.
    """
    recipe, setting = training.recipe, training.setting
    if len(recipe.iterations) > 1:
        raise WrongUsageError(
            f"the recipe trains {named_iterations(recipe.iterations)}: a baseline is trained with one T"
        )
    config = recipe.baseline_chain(len(training.data.class_names))
    starts = [resnet] if resnet else []
    if compressor is not None:
        config = structs.replace(config, encoder=compressor.config, decoder=compressor.decoder)
        starts.append(InitialWeights("compressor", compressor.state_dict))
    training.seed_weights()
    module = BaselineModule(
        config,
        training.data.class_names,
        default_preprocessing(config),
        phase=setting.phase,
        steps=setting.steps,
        iterations=(config.iterations,),
    )
    if compressor is not None:
        module.model.load_state_dict({**module.model.state_dict(), **compressor.state_dict})
    if resnet is not None:
        load_residual_stages(module.model.classifier, resnet)
    training.begin(config, starts)
    return _recognise(training, module, [training.restored_images(config.iterations)])


def _recognise(
    training: Training, module: RecogniserModule, callbacks: Sequence[Callback] = ()
) -> Path | None:
    """Train a chain, and write its checkpoint."""
    path = training.folder / CHECKPOINT_FILE
    if path.exists():
        return path
    if not training.fit(module, callbacks):
        return None
    checkpoint = Checkpoint(
        config=module.model.config,
        preprocessing=module.preprocessing,
        state_dict=module.model.state_dict(),
        trained_iterations=module.trained_iterations,
        class_names=tuple(training.data.class_names),
    )
    if isinstance(module, BaselineModule):
        training.measure_restoration(module, checkpoint.config.iterations)
    evaluation = evaluate(
        checkpoint,
        training.data.test,
        workers=training.options.workers,
        device=best_device(),
        progress=training.progress,
    )
    write_result(evaluation, training.folder / EVALUATION_FILE)
    save_checkpoint(replace(checkpoint, metrics=metrics_of(evaluation, checkpoint.config.iterations)), path)
    (training.folder / STATE).unlink(missing_ok=True)
    return path


def metrics_of(evaluation: Evaluation, iterations: int) -> dict[str, float]:
    """Return the metrics of a checkpoint that runs with T iterations, by name."""
    entry = evaluation.at(iterations)
    assert entry is not None
    return {
        "top1_percent": entry.top1_percent,
        "top5_percent": entry.top5_percent,
        "top1_percent_low": entry.top1_interval_percent.low,
        "top1_percent_high": entry.top1_interval_percent.high,
    }
