"""A short training of the demo's model that records loss and gradients of every step.

``python -m benchmarks.training_gradients pretrain FOLDER --devices 2``. It is a program of its own because
Lightning starts the other processes of a training with the same command. They have one thread each.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import lightning
import torch
from lightning.pytorch.callbacks import Callback
from msgspec import structs

from ccr_deploy.models.presets import default_preprocessing
from training.data.open import open_photos
from training.loop.options import MachineOptions
from training.loop.trainer import Setting, fit
from training.modules.compressor import CompressorModule
from training.modules.recogniser import RecogniserModule
from training.recipe import TrainingRecipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from training.data.open import TrainingData
    from training.modules.module import TrainingModule
    from training.recipe import Phase

Kind = Literal["pretrain", "finetune"]
GRADIENTS = "gradients.pt"


class GradientRecord(Callback):
    """Records the gradients of all parameters before they are clipped, over the whole global batch.

    Args:
        path: the file that is written at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gradients: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, _: torch.optim.Optimizer
    ) -> None:
        """Record the gradients of a step as one vector."""
        if trainer.is_global_zero:
            parts = [
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                for parameter in pl_module.parameters()
            ]
            self.gradients.append(torch.cat([part.flatten() for part in parts]).clone())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Write the vectors of all steps."""
        if trainer.is_global_zero:
            torch.save(torch.stack(self.gradients), self.path)


@click.command()
@click.argument("kind", type=click.Choice(("pretrain", "finetune")))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--steps", default=40, show_default=True, help="Steps of the optimizer.")
@click.option("--devices", default=1, show_default=True, help="Processes.")
@click.option("--micro-batch", type=int, help="Images that a process takes at once.")
@click.option("--double", is_flag=True, help="FP64, in which rounding flips no bit.")
def main(
    kind: Kind, folder: Path, steps: int, devices: int, micro_batch: int | None, *, double: bool
) -> None:
    """Train, and write losses and gradients to a folder."""
    torch.set_num_threads(1)
    if double:
        torch.set_default_dtype(torch.float64)
    os.environ["OMP_NUM_THREADS"] = "1"
    recipe = read_recipe("photos-demo")
    data = open_photos(recipe.chain(classes=16).image_height)
    phase = structs.replace(recipe.phase(kind), validations=1, frozen_share=0.0)
    phase = structs.replace(phase, epochs=steps * phase.batch / len(data.training))  # type: ignore[arg-type]
    options = MachineOptions(devices=devices, micro_batch=micro_batch, log_every=1, save_every=steps)
    lightning.seed_everything(recipe.seed, verbose=False)
    fit(
        _module(kind, recipe, phase, steps, data),
        Setting(data, phase, recipe.seed, options, folder),
        [GradientRecord(folder / GRADIENTS)],
    )


def _module(
    kind: Kind, recipe: TrainingRecipe, phase: Phase, steps: int, data: TrainingData
) -> TrainingModule:
    config = recipe.chain(len(data.class_names))
    preprocessing = default_preprocessing(config)
    if kind == "pretrain":
        return CompressorModule(
            config.encoder,
            recipe.decoder,
            preprocessing,
            phase=phase,
            steps=steps,
            iterations=recipe.iterations,
        )
    return RecogniserModule(
        config, data.class_names, preprocessing, phase=phase, steps=steps, iterations=recipe.iterations
    )


def read_gradients(folder: Path) -> Tensor:
    """Return the gradients of every step: ``float32 [steps, parameters]``."""
    gradients: Tensor = torch.load(folder / GRADIENTS, weights_only=True)
    return gradients


def read_losses(folder: Path) -> Tensor:
    """Return the loss of every step: ``float64 [steps]``."""
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    return torch.tensor(losses, dtype=torch.float64)


def relative_differences(found: Tensor, expected: Tensor) -> Sequence[float]:
    """Return the norm of the difference divided by the norm of the expected vector, for each step.

    Args:
        found: one vector for each step.
        expected: as `found`.
    """
    difference = (found.double() - expected.double()).norm(dim=1)
    return (difference / expected.double().norm(dim=1)).tolist()


if __name__ == "__main__":
    main()
