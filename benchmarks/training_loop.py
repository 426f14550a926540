"""Compare ``python -m training finetune`` with a plain PyTorch loop: images per second on photos.

``python -m benchmarks.training_loop`` trains the model of photos-demo for 100 steps of 64 images by
Lightning, with its logs, and by a loop as a user would write it, with the same network, loader,
optimizer and gradient clipping; one thread, interleaved. It takes three minutes and writes
``benchmarks/results/training-loop.json``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from msgspec import structs
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from benchmarks.scaffold import (
    interleaved,
    machine_words,
    publish,
    rounds_option,
    temporary_folder,
    unreliable_warning,
    watched,
)
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.statistics import Medians
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record
from ccr_deploy.models.chain import normalise
from ccr_deploy.models.presets import default_preprocessing
from ccr_deploy.reporting.table import Table, interval_text, significant
from training.data.batches import Batches
from training.data.open import open_photos
from training.loop.options import MachineOptions
from training.loop.trainer import Setting, fit
from training.modules.optimisation import one_cycle_adamw
from training.modules.recogniser import RecogniserModule
from training.recipe import Phase, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ccr_deploy.benchmarking.results import Contention

WARM_UP = 10
STEPS = 100
RECIPE = read_recipe("photos-demo")
DATA = open_photos(48)


class LoopSpeed(Record, frozen=True):
    """Images per second of both, their ratio, and the share of time that the trainer waited for data."""

    schema_version: int
    machine: MachineState
    rounds: int
    plain_images_per_second: float
    trainer_images_per_second: float
    ratio: float
    ratio_interval: Interval
    data_wait_percent: float
    unreliable_reasons: tuple[str, ...]


class Clock(Callback):
    """Notes when each batch ended, and the last logged share of waiting for data."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.waited = 0.0

    def on_train_batch_end(self, trainer: Any, *_: object) -> None:  # noqa: ANN401 -- Lightning's signature
        """Note the time."""
        self.ends.append(time.perf_counter())
        self.waited = float(trainer.callback_metrics.get("data_wait_percent", 0.0))


@click.command()
@rounds_option(9, "Rounds; each trains 100 steps both ways.")
def main(rounds: int) -> None:
    """Measure, and write the result beside this script."""
    torch.set_num_threads(1)
    machine = machine_state()
    waits: list[float] = []
    found: list[Contention] = []
    with temporary_folder() as folder, watched("chain", found):
        ways: dict[str, Callable[[], float]] = {
            "plain": _plain_seconds,
            "trainer": partial(_trainer_seconds, folder, waits),
        }
        seconds = interleaved("Training loops", ways, rounds)
    plain, trainer = (Medians.of(np.array(seconds[name])[:, None]) for name in ("plain", "trainer"))
    ratio = plain / trainer
    batch = RECIPE.phase("finetune").batch
    result = LoopSpeed(
        schema_version=1,
        machine=machine,
        rounds=rounds,
        plain_images_per_second=batch / plain.median,
        trainer_images_per_second=batch / trainer.median,
        ratio=ratio.median,
        ratio_interval=ratio.interval,
        data_wait_percent=float(np.median(waits)),
        unreliable_reasons=unreliable_reasons(1, found),
    )
    publish("training-loop", result, training_loop_table(result))


def training_loop_table(result: LoopSpeed) -> Table:
    """Return the table, in one row."""
    return Table.of(
        "The trainer and a plain PyTorch loop",
        [result],
        [
            ("plain loop, images/s", lambda row: significant(row.plain_images_per_second)),
            ("trainer, images/s", lambda row: significant(row.trainer_images_per_second)),
            ("ratio", lambda row: f"{row.ratio:.3f}"),
            ("95 % interval", lambda row: interval_text(row.ratio_interval, 3)),
            ("waiting for data", lambda row: f"{row.data_wait_percent:.1f} %"),
        ],
        note=f"fine-tuning with photos-demo, batch 64, one thread, {result.rounds} interleaved rounds of "
        f"{STEPS} steps; on {machine_words(result.machine)}",
        warning=unreliable_warning(result.unreliable_reasons),
    )


def _module() -> RecogniserModule:
    torch.manual_seed(0)
    config = RECIPE.chain(classes=16)
    return RecogniserModule(
        config,
        DATA.class_names,
        default_preprocessing(config),
        phase=_phase(),
        steps=STEPS,
        iterations=RECIPE.iterations,
    )


def _phase() -> Phase:
    phase = RECIPE.phase("finetune")
    epochs = STEPS * phase.batch / len(DATA.training)  # type: ignore[arg-type]
    return structs.replace(phase, epochs=epochs, frozen_share=0.0, validations=1)


def _trainer_seconds(folder: Path, waits: list[float]) -> float:
    """Return the seconds of a step with Lightning and logs, without warm-up and validation."""
    clock = Clock()
    setting = Setting(DATA, _phase(), 0, MachineOptions(), folder / str(len(waits)))
    fit(_module(), setting, [clock])
    waits.append(clock.waited)
    return (clock.ends[-1] - clock.ends[WARM_UP - 1]) / (STEPS - WARM_UP)


def _plain_seconds() -> float:
    """Return the seconds of a step in a loop as a user would write it, without warm-up."""
    module = _module()
    chain = module.model
    phase = _phase()
    optimization: Any = one_cycle_adamw(chain.parameters(), phase, STEPS)
    optimizer, schedule = optimization["optimizer"], optimization["lr_scheduler"]["scheduler"]
    batches = Batches(len(DATA.training), phase.batch, STEPS, seed=0)  # type: ignore[arg-type]
    ends = []
    chain.train()
    for images, labels in DataLoader(DATA.training, batch_sampler=batches):
        logits = chain(normalise(images, module.preprocessing))
        loss = cross_entropy(logits, labels, label_smoothing=phase.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chain.parameters(), phase.gradient_clip)
        optimizer.step()
        schedule.step()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[WARM_UP - 1]) / (STEPS - WARM_UP)


if __name__ == "__main__":
    main()
