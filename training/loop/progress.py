"""Progress of a training: a bar on a terminal, plain lines in a pipe or file, rates in the logs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from training.loop.rates import Mark, StepRates, duration_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightning
    from rich.console import Console

    from training.loop.rates import Rate

LINE_SECONDS = 30.0
"""Time between two lines in a pipe or file."""
BAR_SECONDS = 0.5
"""Time between two updates of the bar: reading the loss makes a GPU finish its work first."""
_FETCH = "[_TrainingEpochLoop].train_dataloader_next"
"""Lightning's name of the action that takes the next batch from the loader."""


class DataWait(PassThroughProfiler):
    """Measures how long a training waits for its data.

    As the profiler of a `lightning.Trainer` it is told when Lightning asks the loader for the next training
    batch, and when it has it. The time between the end of a step and the start of the next one would contain
    validation, checkpoints, other callbacks and the copy to the GPU too.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.seconds = 0.0
        self._clock = clock
        self._started = 0.0

    def start(self, action_name: str) -> None:
        """Note when the training begins to wait."""
        if action_name == _FETCH:
            self._started = self._clock()

    def stop(self, action_name: str) -> None:
        """Add the time since then."""
        if action_name == _FETCH:
            self.seconds += self._clock() - self._started


@dataclass(frozen=True)
class StepState:
    """What is shown of a training after a step; None if it is not known yet."""

    step: int
    total_steps: int
    loss: float | None
    learning_rate: float
    rate: Rate | None
    seconds_left: float | None

    @property
    def line(self) -> str:
        """The state as one line."""
        return ", ".join((f"step {self.step:,} of {self.total_steps:,}", *self._loss, *self._figures))

    @property
    def short(self) -> str:
        """Loss, speed and time left, for a bar."""
        waiting = [f"{self.rate.waiting_percent:.0f} % waiting"] if self.rate else []
        speed = [f"{self.rate.images_per_second:,.0f} images/s"] if self.rate else []
        return ", ".join((*self._loss, *speed, *waiting, *self._left))

    @property
    def _loss(self) -> tuple[str, ...]:
        return () if self.loss is None else (f"loss {self.loss:.4g}",)

    @property
    def _left(self) -> tuple[str, ...]:
        return () if self.seconds_left is None else (f"{duration_text(self.seconds_left)} left",)

    @property
    def _figures(self) -> tuple[str, ...]:
        rate = self.rate
        speed = (
            (f"{rate.images_per_second:,.0f} images/s", f"{rate.waiting_percent:.0f} % waiting for data")
            if rate
            else ()
        )
        return (f"learning rate {self.learning_rate:.3g}", *speed, *self._left)


class TrainingProgress(Callback):
    """Shows the progress of a whole training, and logs its rates.

    Logged are ``images_per_second`` and ``data_wait_percent``, of the last steps. Only the process of rank 0
    shows something; turn off the trainer's own progress bar.

    Args:
        title: what is trained.
        images_per_step: images of one optimizer step, over all processes.
        wait: the trainer's profiler.
        console: where to show it; a bar if it is a terminal, otherwise lines.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        title: str,
        images_per_step: int,
        wait: DataWait,
        console: Console,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._title = title
        self._images_per_step = images_per_step
        self._wait = wait
        self._console = console
        self._clock = clock
        self._rates = StepRates(0, images_per_step)
        self._bar: Progress | None = None
        self._step = self._total_steps = 0
        self._shown_at = self._paused_at = self._paused_seconds = 0.0

    @property
    def overall(self) -> Rate | None:
        """The rate of the whole training without its warm-up; None before the end of the warm-up."""
        return self._rates.overall

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Start with the first step, or with the step that a resumed training continues with."""
        self._total_steps = int(trainer.estimated_stepping_batches)
        self._rates = StepRates(self._total_steps, self._images_per_step)
        self._step = trainer.global_step
        self._shown_at = self._clock()
        if trainer.is_global_zero and self._console.is_terminal:
            self._bar = training_bar(self._console)
            self._bar.add_task(self._title, total=self._total_steps, completed=self._step, short="")
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        *_args: Any,  # noqa: ANN401 -- Lightning's signature: outputs, batch and its number
        **_options: Any,  # noqa: ANN401
    ) -> None:
        """Add the optimizer step, if this batch ended one."""
        if trainer.global_step == self._step:
            return  # gradients are accumulated over several batches
        self._step = trainer.global_step
        now = self._clock()
        self._rates.add(Mark(self._step, now, self._wait.seconds, self._paused_seconds))
        # Lightning writes what was logged in the step in which it writes its logs.
        every_steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector
        if self._step % every_steps == 0 and (rate := self._rates.current):
            pl_module.log("images_per_second", rate.images_per_second)
            pl_module.log("data_wait_percent", rate.waiting_percent)
        every = BAR_SECONDS if self._bar else LINE_SECONDS
        if trainer.is_global_zero and (now - self._shown_at >= every or self._step == self._total_steps):
            self._shown_at = now
            self._show(self._state(trainer))

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Stop the clock of the rates."""
        self._paused_at = self._clock()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Let the clock of the rates go on."""
        self._paused_seconds += self._clock() - self._paused_at

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Leave the bar as it is."""
        self._close()

    def on_exception(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Lightning's signature
        """Leave the terminal in order."""
        self._close()

    def _state(self, trainer: lightning.Trainer) -> StepState:
        loss = trainer.callback_metrics.get("loss")
        return StepState(
            step=self._step,
            total_steps=self._total_steps,
            loss=None if loss is None else float(loss),
            learning_rate=float(trainer.optimizers[0].param_groups[0]["lr"]),
            rate=self._rates.current,
            seconds_left=self._rates.seconds_left,
        )

    def _show(self, state: StepState) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=state.step, short=state.short)
        else:
            self._console.print(Text(f"{self._title}: {state.line}"), soft_wrap=True)

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


def training_bar(console: Console) -> Progress:
    """Return a bar; the field `short` of its task is shown beside it."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        # Not the number of the step: with the figures of a long training it would not fit 80 columns.
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[short]}", markup=False),
        console=console,
        expand=True,
    )
