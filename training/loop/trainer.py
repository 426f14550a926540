"""Run a training with Lightning, from its beginning or from its last saved state."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from training.loop.loaders import Loaders
from training.loop.loggers import training_loggers
from training.loop.options import LIGHTNING_PRECISION
from training.loop.progress import DataWait, TrainingProgress
from training.loop.saved_state import STATE, AtomicCheckpoints, SaveState, saved_step
from training.loop.seeding import SeedEachBatch
from training.loop.step_loss import StepLoss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    from training.data.open import TrainingData
    from training.loop.options import MachineOptions
    from training.modules.module import TrainingModule
    from training.recipe import Phase


@dataclass(frozen=True)
class Setting:
    """All that a training needs apart from the module that is trained.

    Attributes:
        data: training and test images.
        phase: the hyperparameters.
        seed: seed of weights, order, augmentation and random bits.
        options: devices, precision and speed.
        folder: where its state and its logs are.
        title: what is trained, for a person.
    """

    data: TrainingData
    phase: Phase
    seed: int
    options: MachineOptions
    folder: Path
    title: str = "training"

    @property
    def steps(self) -> int:
        """Steps of the optimizer in the whole training."""
        return self.phase.steps(len(self.data.training))  # type: ignore[arg-type]


def fit(module: TrainingModule, setting: Setting, callbacks: Sequence[Callback] = ()) -> bool:
    """Train a module, from its last saved state if there is one.

    For Lightning the whole training is one epoch, whose batches `training.data.batches` chooses: so the
    position in it is one number.

    Args:
        module: what is trained; changed in place.
        setting: data, hyperparameters and machine.
        callbacks: further callbacks, for what a person sees.

    Returns:
        Whether this process is the one that writes the result.

    Raises:
        KeyboardInterrupt: if the training was interrupted.
        TrainingError: if the loss is not a number, or the state cannot be read or written.
        WrongUsageError: if the batch cannot be divided among the processes.
        ImageError: if an image cannot be used.
    """
    phase, options = setting.phase, setting.options
    state = setting.folder / STATE
    first_step = saved_step(state)
    accumulation = options.accumulation(phase)
    loaders = Loaders(setting.data, phase, options, setting.seed, first_step)
    wait = DataWait()
    if options.channels_last:
        module.to(memory_format=torch.channels_last)
    if options.compiled:
        module.compile_networks()
    with _quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=_strategy(options, phase, module),
            precision=LIGHTNING_PRECISION[options.precision],  # type: ignore[arg-type]
            max_epochs=1,
            accumulate_grad_batches=accumulation,
            gradient_clip_val=phase.gradient_clip,  # against exploding gradients of recurrent cells
            val_check_interval=-(-setting.steps // phase.validations) * accumulation,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic=not torch.cuda.is_available(),
            plugins=[AtomicCheckpoints()],
            callbacks=[
                SeedEachBatch(setting.seed, accumulation),
                StepLoss(state, options.log_every, options.save_every),
                TrainingProgress(setting.title, phase.batch, wait, Console(file=sys.stderr)),
                *callbacks,
                SaveState(state, options.save_every, accumulation, first_step),
            ],
            logger=training_loggers(setting.folder, first_step),
            profiler=wait,
            log_every_n_steps=options.log_every,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        try:
            trainer.fit(module, datamodule=loaders, ckpt_path=state if first_step else None)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    return trainer.is_global_zero


def _strategy(options: MachineOptions, phase: Phase, module: TrainingModule) -> DDPStrategy | str:
    if options.processes == 1:
        return "auto"
    # Frozen parameters get no gradients, nor the hidden convolutions with T = 1. The processes would wait for
    # them otherwise.
    unused = phase.frozen_share > 0 or 1 in module.trained_iterations
    return DDPStrategy(find_unused_parameters=unused)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's recommendations, such as more loader workers, and its lines from each process."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        # Of DDP: strides of a convolution of 1x1 pixels, which have the same meaning in both layouts.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield
