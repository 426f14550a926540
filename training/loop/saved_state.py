"""The state of an unfinished training on disk, and what the command that continues it must agree with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.records import Record, first_difference, parse_versioned_json, to_json
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.errors import CheckpointError, TrainingError, WrongUsageError
from ccr_deploy.models.checkpoint_file import read_checkpoint, write_checkpoint
from ccr_deploy.models.config import DecoderConfig, ModelConfig
from training.recipe import Phase, Step

if TYPE_CHECKING:
    import lightning

STATE = "state.ckpt"
"""Weights, optimizer, schedule and position of an unfinished training."""
RUN = "run.json"


class Run(Record, frozen=True, kw_only=True):
    """What a training was started with, apart from how it uses the machine.

    Attributes:
        schema_version: of this record.
        step: the command.
        model: the configuration of the chain.
        decoder: that of the decoder.
        phase: the hyperparameters.
        iterations: every T that is trained.
        seed: seed of weights, order, augmentation and random bits.
        data: fingerprint of the data set.
        started_from: digests of the weights that it started from, with their file names.
    """

    schema_version: Literal[1] = 1
    step: Step
    model: ModelConfig
    decoder: DecoderConfig
    phase: Phase
    iterations: tuple[int, ...]
    seed: int
    data: str
    started_from: tuple[str, ...] = ()


def begin_or_continue(run: Run, folder: Path) -> None:
    """Record what a training was started with, or check that it is the same as when it was started.

    Args:
        run: what it is started with now.
        folder: the folder of the training.

    Raises:
        WrongUsageError: if the folder belongs to a training that was started with something else.
        TrainingError: if the folder cannot be read or written.
    """
    path = folder / RUN
    remedy = "give another --output, or remove this folder to start again"
    with writing(folder, TrainingError):
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, to_json(run).encode())
            return
    with reading(path, TrainingError, remedy):
        text = read_bytes(path)
    before = parse_versioned_json(Run, text, path, version=1, error=TrainingError, remedy=remedy)
    if difference := first_difference(run, before):
        field, now, then = difference
        raise WrongUsageError(
            f"{path}: the training in this folder was started with {field} = {_shown(then)}, not "
            f"{_shown(now)}: {remedy}"
        )


def saved_step(path: Path) -> int:
    """Return the step that a saved state continues at; 0 if there is none.

    Raises:
        CheckpointError: if the state is damaged.
    """
    if not path.exists():
        return 0
    step = read_checkpoint(path).get("global_step")
    if type(step) is not int:
        raise CheckpointError(f"{path}: not the state of a training: remove it to start again")
    return step


def _shown(value: object) -> str:
    text = to_json(value, indent=None) if isinstance(value, msgspec.Struct) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


class AtomicCheckpoints(TorchCheckpointIO):
    """Replaces a state in one step: a killed process leaves the old one or the new one."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401, ARG002  Lightning's signature
    ) -> None:
        """Write the state to a temporary file, and rename it.

        Args:
            checkpoint: the state.
            path: the file.
            storage_options: none.
        """
        with writing(Path(path), TrainingError):
            write_checkpoint(checkpoint, Path(path))


class SaveState(Callback):
    """Saves the state of the training every few steps and at its end, and finds the position of a saved one.

    A state is saved before the first batch after its step: then it follows the validation after this step,
    which the resumed training does not repeat.

    Args:
        path: the file of the state.
        save_every: steps between two states.
        accumulation: the number of micro-batches in one step of the optimizer.
        first_step: the step that the training continues at.
    """

    def __init__(self, path: Path, save_every: int, accumulation: int, first_step: int) -> None:
        self.path, self.save_every, self.accumulation = path, save_every, accumulation
        self.first_step = self._saved = first_step

    def setup(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002  Lightning's signature
        stage: str,  # noqa: ARG002
    ) -> None:
        """Check that all processes continue at the same step.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            stage: the trainer's stage.

        Raises:
            TrainingError: if a process found no state, or another one.
        """
        strategy = trainer.strategy
        steps = strategy.all_gather(torch.tensor(self.first_step, device=strategy.root_device))
        if (steps != self.first_step).any():
            raise TrainingError(
                f"{self.path}: the processes would continue at different steps, "
                f"{sorted(set(steps.tolist()))}: give an --output on a file system that all nodes share"
            )

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002  Lightning's signature
        pl_module: lightning.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Set Lightning's position, so that a training can continue with another number of micro-batches.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            checkpoint: the saved state; changed in place.
        """
        batches = self.first_step * self.accumulation
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, batches))

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: object,  # noqa: ARG002  Lightning's signature
        batch_idx: int,
    ) -> None:
        """Save the state, if it is time.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            batch: the micro-batch.
            batch_idx: its number, counted over the whole training.
        """
        step = trainer.global_step
        # Lightning's number of the step in the logs: in a resumed training, it would be one too high or low.
        trainer.fit_loop.epoch_loop._batches_that_stepped = step
        if batch_idx % self.accumulation == 0 and step % self.save_every == 0:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the last state: the evaluation that follows may be interrupted too."""
        self._save(trainer, pl_module)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save the state of a step once.

        Raises:
            TrainingError: if a weight is not finite, or the state cannot be written.
        """
        step = trainer.global_step
        if step == self._saved:
            return
        if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
            raise diverged(f"a weight is not finite after step {step}", self.path)
        trainer.save_checkpoint(self.path)
        self._saved = step


def diverged(problem: str, state: Path) -> TrainingError:
    """Return the error of a training whose numbers are no longer finite.

    Args:
        problem: what is not finite.
        state: the file of the last state.
    """
    kept = f"; {state} has the state of step {step}" if (step := saved_step(state)) else ""
    return TrainingError(
        f"{problem}: lower the learning_rate or the gradient_clip in the recipe, and give another "
        f"--output{kept}"
    )
