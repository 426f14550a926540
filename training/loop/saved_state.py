"""The state of an unfinished training on disk, and what the command that continues it must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ccr_deploy.core.atomic import atomic_file, write_atomically, writing
from ccr_deploy.core.records import Record, first_difference, parse_versioned_json, to_json
from ccr_deploy.core.untrusted import read_bytes, reading
from ccr_deploy.errors import CheckpointError, TrainingError, WrongUsageError
from ccr_deploy.models.checkpoint_file import read_checkpoint
from ccr_deploy.models.config import DecoderConfig, ModelConfig
from training.recipe import Phase, Step

if TYPE_CHECKING:
    from pathlib import Path

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
        from pathlib import Path

        with writing(Path(path), TrainingError), atomic_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class SaveState(Callback):
    """Saves the state of the training every few steps, and stops it if the loss is not a number.

    A state with a loss that is not finite is never saved, so that the last one can be continued from.

    Args:
        path: the file of the state.
        save_every: steps between two states.
        check_every: steps between two looks at the loss. Each waits for the GPU.
    """

    def __init__(self, path: Path, save_every: int, check_every: int) -> None:
        self.path, self.save_every, self.check_every = path, save_every, check_every
        self._step = self._saved = 0

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Remember the step that the training continues at."""
        self._step = self._saved = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,  # noqa: ARG002  Lightning's signature, as the next two
        outputs: Any,  # noqa: ANN401 -- Lightning's signature
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Check the loss and save the state, if it is time.

        Args:
            trainer: the trainer.
            pl_module: the module that is trained.
            outputs: what the training step returned, with the loss.
            batch: the batch.
            batch_idx: its number.

        Raises:
            TrainingError: if the loss is not finite.
        """
        step = trainer.global_step
        if step == self._step:  # in the middle of an accumulation
            return
        self._step = step
        saves = step % self.save_every == 0
        if (saves or step % self.check_every == 0) and not torch.isfinite(outputs["loss"]):
            kept = f"; {self.path} has the state of step {self._saved}" if self._saved else ""
            raise TrainingError(
                f"the loss is {outputs['loss'].item()} at step {step}: lower the learning_rate or the "
                f"gradient_clip in the recipe, and give another --output{kept}"
            )
        if saves:
            trainer.save_checkpoint(self.path)
            self._saved = step
