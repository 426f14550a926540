"""Measure the speed of training: images per second of forward pass, backward pass and optimizer step.

``python -m benchmarks.training_speed`` trains the demo's model (one thread, batch 64) and ``ccr-layer1`` at
224x224, T=8 (two threads, batch 4) with random images on a CPU, and writes
``benchmarks/results/training-speed.json``. It takes three minutes. Every round trains one step with each
candidate. They differ in the recurrence of the encoder alone:

- as a user writes it, with the stem and all input convolutions in every iteration;
- the encoder's own ``forward``, which computes what does not depend on the iteration once per image;
- the same layer after layer, with the input convolutions of all iterations as one batch;
- the encoder's ``forward`` in channels_last, and also compiled (`torch.compile`, which needs a C++ compiler).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.scaffold import (
    interleaved,
    machine_words,
    publish,
    rounds_option,
    unreliable_warning,
    watched,
)
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.statistics import Medians
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record
from ccr_deploy.models.chain import CcrChain, normalise
from ccr_deploy.models.presets import default_preprocessing, preset
from ccr_deploy.reporting.table import Table, interval_text, significant

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.benchmarking.results import Contention
    from ccr_deploy.models.conv_lstm import State
    from ccr_deploy.models.encoder import RecurrentEncoder

    Encode = Callable[[RecurrentEncoder, Tensor, int], Tensor]
    """Returns the codes of normalised images after T iterations."""

PARTS = ("encoder alone", "finetune step")


class StepSpeed(Record, frozen=True):
    """The speed of a candidate; `speedup` is relative to the user's loop in the same part."""

    part: str
    candidate: str
    images_per_second: float
    speedup: float
    speedup_interval: Interval


class ModelSpeed(Record, frozen=True):
    """The speeds of one model; `unreliable_reasons` says what disturbed them, if anything."""

    model: str
    batch: int
    threads: int
    rounds: int
    steps: tuple[StepSpeed, ...]
    unreliable_reasons: tuple[str, ...]


class TrainingSpeed(Record, frozen=True):
    """The speeds of all models."""

    schema_version: int
    machine: MachineState
    models: tuple[ModelSpeed, ...]


@dataclass(frozen=True)
class Case:
    """A model and how it is trained; a short step has more rounds, `rounds_factor` times as many."""

    preset: str
    batch: int
    threads: int
    rounds_factor: int


@dataclass(frozen=True)
class Candidate:
    """A way to compute the recurrence."""

    encode: Encode
    memory_format: torch.memory_format = torch.contiguous_format
    is_compiled: bool = False


CASES = (Case("demo", batch=64, threads=1, rounds_factor=5), Case("ccr-layer1", 4, 2, 1))


def users_loop(encoder: RecurrentEncoder, image: Tensor, iterations: int) -> Tensor:
    """Return the codes of normalised images ``[N, 3, H, W]``, with all work in every iteration.

    Args:
        encoder: the encoder.
        image: normalised images ``float32 [N, 3, H, W]``.
        iterations: the number of iterations T.
    """
    states: list[State | None] = [None] * len(encoder.cells)
    for _ in range(iterations):
        features, states = encoder.step(image, states)
    return encoder.binarizer(features)


def own_forward(encoder: RecurrentEncoder, image: Tensor, iterations: int) -> Tensor:
    """Return the codes of normalised images by the encoder's ``forward``; see `users_loop`."""
    return encoder(image, iterations)


def layer_major(encoder: RecurrentEncoder, image: Tensor, iterations: int) -> Tensor:
    """Return the codes of normalised images, computed layer after layer; see `users_loop`."""
    gates = [encoder.cells.first_gates(encoder.stem(image))] * iterations
    hidden: list[Tensor] = []
    for index, cell in enumerate(encoder.cells):
        if index:
            gates = list(cell.input_conv(torch.cat(hidden)).chunk(iterations))
        state: State | None = None
        hidden = []
        for own in gates:
            state = cell.next_state(own, state)
            hidden.append(state[0])
    return encoder.binarizer(hidden[-1])


USERS_LOOP = "the user's loop"
CANDIDATES: dict[str, Candidate] = {
    USERS_LOOP: Candidate(users_loop),
    "forward": Candidate(own_forward),
    "layer-major": Candidate(layer_major),
    "forward, channels_last": Candidate(own_forward, torch.channels_last),
    "forward, channels_last, compiled": Candidate(own_forward, torch.channels_last, is_compiled=True),
}


@click.command()
@rounds_option(5, "Rounds of ccr-layer1; the demo's model has five times as many.")
def main(rounds: int) -> None:
    """Measure, and write the result beside this script."""
    machine = machine_state()
    models = tuple(_measured(case, rounds * case.rounds_factor) for case in CASES)
    result = TrainingSpeed(schema_version=1, machine=machine, models=models)
    publish("training-speed", result, training_speed_table(result))


def _measured(case: Case, rounds: int) -> ModelSpeed:
    torch.set_num_threads(case.threads)
    steps: dict[str, Callable[[], None]] = {}
    for name, candidate in CANDIDATES.items():
        for part, step in zip(PARTS, _steps(case, candidate), strict=True):
            steps[f"{part}: {name}"] = step
            step()  # allocates, and compiles
    found: list[Contention] = []
    with watched("chain", found):
        seconds = interleaved(
            f"Training {case.preset}",
            {name: partial(_seconds, step) for name, step in steps.items()},
            rounds,
        )
    medians = {name: Medians.of(np.array(times)[:, None]) for name, times in seconds.items()}
    config = preset(case.preset)
    return ModelSpeed(
        model=f"{case.preset}, {config.image_height}x{config.image_width}, T={config.iterations}",
        batch=case.batch,
        threads=case.threads,
        rounds=rounds,
        steps=tuple(
            _speed(case, part, name, medians[f"{part}: {USERS_LOOP}"], medians[f"{part}: {name}"])
            for part in PARTS
            for name in CANDIDATES
        ),
        unreliable_reasons=unreliable_reasons(case.threads, found),
    )


def _steps(case: Case, candidate: Candidate) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a step of the encoder alone, and of encoder and classifier; both as a plain PyTorch loop."""
    config = preset(case.preset)
    preprocessing = default_preprocessing(config)
    torch.manual_seed(0)  # all candidates have the same weights and images
    chain = CcrChain(config).to(memory_format=candidate.memory_format)
    images = torch.randint(256, (case.batch, config.image_height, config.image_width, 3), dtype=torch.uint8)
    labels = torch.randint(config.classifier.classes, (case.batch,))
    encode = torch.compile(candidate.encode) if candidate.is_compiled else candidate.encode

    def step(loss: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer) -> None:
        pixels = normalise(images, preprocessing).contiguous(memory_format=candidate.memory_format)
        loss(encode(chain.encoder, pixels, config.iterations)).backward()
        optimizer.step()
        optimizer.zero_grad()

    def recognition_loss(code: Tensor) -> Tensor:
        return cross_entropy(chain.classifier(code), labels)

    return (
        partial(step, torch.sum, _optimizer(chain.encoder)),
        partial(step, recognition_loss, _optimizer(chain)),
    )


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=1e-5)


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _speed(case: Case, part: str, name: str, loop: Medians, candidate: Medians) -> StepSpeed:
    """Return the speed of a candidate from its seconds and those of the user's loop."""
    ratio = loop / candidate
    return StepSpeed(part, name, case.batch / candidate.median, ratio.median, ratio.interval)


def training_speed_table(result: TrainingSpeed) -> Table:
    """Return the table: a row for each candidate in each part of each model."""
    rows = [(model, step) for model in result.models for step in model.steps]
    return Table.of(
        "Speed of training",
        rows,
        [
            ("model", lambda row: row[0].model),
            ("part", lambda row: row[1].part),
            ("recurrence", lambda row: row[1].candidate),
            ("images/s", lambda row: significant(row[1].images_per_second)),
            ("times the user's loop", lambda row: f"{row[1].speedup:.2f}"),
            ("95 % interval", lambda row: interval_text(row[1].speedup_interval, 2)),
        ],
        note="forward pass, backward pass and optimizer step in FP32, interleaved; "
        + "; ".join(
            f"{model.model}: batch {model.batch}, {model.threads} threads, {model.rounds} rounds"
            for model in result.models
        )
        + f"; on {machine_words(result.machine)}",
        warning=unreliable_warning(
            [f"{model.model}: {reason}" for model in result.models for reason in model.unreliable_reasons]
        ),
    )


if __name__ == "__main__":
    main()
