"""Run a training with Lightning, from its beginning or from its last saved state."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy

from training.loaders import Loaders
from training.options import LIGHTNING_PRECISION
from training.saved_state import STATE, AtomicCheckpoints, SaveState
from training.seeding import SeedEachBatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback

    from training.data.open import TrainingData
    from training.modules.module import TrainingModule
    from training.options import MachineOptions
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
    """

    data: TrainingData
    phase: Phase
    seed: int
    options: MachineOptions
    folder: Path

    @property
    def steps(self) -> int:
        """Steps of the optimizer in the whole training."""
        return self.phase.steps(len(self.data.training))  # type: ignore[arg-type]


def fit(module: TrainingModule, setting: Setting, callbacks: Sequence[Callback] = ()) -> lightning.Trainer:
    """Train a module, from its last saved state if there is one.

    For Lightning the whole training is one epoch, whose batches `training.data.batches` chooses: so the
    position in it is one number.

    Args:
        module: what is trained; changed in place.
        setting: data, hyperparameters and machine.
        callbacks: further callbacks, for what a person sees.

    Returns:
        The trainer, which knows this process's rank.

    Raises:
        TrainingError: if the loss is not a number, or the state cannot be read or written.
        WrongUsageError: if the batch cannot be divided among the processes.
        ImageError: if an image cannot be used.
    """
    phase, options = setting.phase, setting.options
    state = setting.folder / STATE
    loaders = Loaders(setting.data, phase, options, setting.seed)
    if options.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.compiled:
        module.compile_networks()
    with _quiet():
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=options.devices,
            num_nodes=options.nodes,
            strategy=_strategy(options, phase),
            precision=LIGHTNING_PRECISION[options.precision],  # type: ignore[arg-type]
            max_epochs=1,
            accumulate_grad_batches=options.accumulation(phase),
            gradient_clip_val=phase.gradient_clip,  # against exploding gradients of recurrent cells
            val_check_interval=max(1, loaders.batches // phase.validations),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic=not torch.cuda.is_available(),
            plugins=[AtomicCheckpoints()],
            callbacks=[
                SeedEachBatch(setting.seed),
                *callbacks,
                SaveState(state, options.save_every, options.log_every),
            ],
            logger=False,
            log_every_n_steps=options.log_every,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, datamodule=loaders, ckpt_path=state if state.exists() else None)
    return trainer


def _strategy(options: MachineOptions, phase: Phase) -> DDPStrategy | str:
    if options.processes == 1:
        return "auto"
    # Frozen parameters get no gradients; without this, the processes would wait for them.
    return DDPStrategy(find_unused_parameters=phase.frozen_share > 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's recommendations: more loader workers, other loggers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
