"""Run both training steps of a recipe."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader

from ccr_deploy.models.checkpoint import Checkpoint
from training.compressor import CompressorModule
from training.recogniser import RecogniserModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.utils.data import Dataset

    from training.recipe import Phase, TrainingRecipe

    Batch = tuple[Tensor, Tensor]
    Data = Dataset[Batch] | DataLoader[tuple[Tensor, int]]


def train(
    recipe: TrainingRecipe, training_data: Data, test_data: Data, class_names: Sequence[str]
) -> Checkpoint:
    """Run both training steps and return the checkpoint with its metrics.

    Batches are images ``uint8 [N, H, W, 3]`` with labels ``int64 [N]``. A data set must yield whole batches,
    as `TrainingCrops` does; a data set of single images (`ImageFolder`) must be wrapped in a `DataLoader`.

    Args:
        recipe: the model, its decoder and the settings of both steps.
        training_data: training batches for both steps; may be endless.
        test_data: test batches for both steps.
        class_names: names of the labels 0, 1, ….
    """
    lightning.seed_everything(recipe.seed, verbose=False)
    with warnings.catch_warnings():
        # Lightning recommends more loader workers, but batches made by indexing need none.
        warnings.filterwarnings("ignore", module="lightning")
        training_batches, test_batches = _batches(training_data), _batches(test_data)
        compressor = CompressorModule(recipe.model, recipe.decoder, recipe.preprocessing, recipe.pretraining)
        pretrainer = _trainer(recipe.pretraining, "Step 1 of 2: compressor")
        pretrainer.fit(compressor, training_batches)
        (restored,) = pretrainer.test(compressor, test_batches, verbose=False)
        recogniser = RecogniserModule(
            recipe.model, recipe.preprocessing, class_names, recipe.training, compressor.encoder.state_dict()
        )
        trainer = _trainer(recipe.training, "Step 2 of 2: recogniser")
        trainer.fit(recogniser, training_batches)
        (tested,) = trainer.test(recogniser, test_batches, verbose=False)
    return Checkpoint(
        config=recipe.model,
        preprocessing=recipe.preprocessing,
        state_dict=recogniser.model.state_dict(),
        trained_iterations=(recipe.model.iterations,),
        class_names=tuple(class_names),
        metrics={
            "pretraining_l1": float(restored["l1"]),
            "top1_percent": 100 * float(tested["top1"]),
            "top5_percent": 100 * float(tested["top5"]),
        },
    )


class _TitledBar(RichProgressBar):
    """Shows the step's title: with one endless epoch, Lightning would show "Epoch 0/-2"."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def _get_train_description(self, current_epoch: int) -> str:  # noqa: ARG002  Lightning's signature
        return self.title


def _batches(data: Data) -> DataLoader[Any]:
    return data if isinstance(data, DataLoader) else DataLoader(data, batch_size=None)


def _trainer(phase: Phase, title: str) -> lightning.Trainer:
    """Return a trainer that writes nothing to disk, and shows a progress bar only on a terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    on_terminal = sys.stderr.isatty()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=phase.steps,
        gradient_clip_val=1.0,  # against occasional exploding gradients of recurrent cells
        limit_train_batches=phase.steps,  # ends the epoch of endless data, and sets the bar's length
        enable_progress_bar=on_terminal,
        callbacks=[_TitledBar(title)] if on_terminal else [],
        deterministic=not torch.cuda.is_available(),
        **options,
    )
