"""Compare one training with several T against a training for each T, on scikit-image's photos: five seeds.

``python -m benchmarks.several_iterations FOLDER`` trains the model of photos-demo with T drawn from 1, 2 and
3 for each batch, also with twice the epochs, and with each T alone, all from the same pretrained compressor,
and writes ``benchmarks/results/several-iterations.json``. Accuracies are compared on the same test images. It
takes 25 to 60 minutes on one core; if it was interrupted, the same command continues. The checkpoints stay in
the folder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from msgspec import structs

from benchmarks.scaffold import machine_words, publish
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from training.data.open import open_photos
from training.evaluation.comparison import Comparison, compare
from training.evaluation.results import EVALUATION_FILE, Evaluation, read_result
from training.initial_weights import encoder_weights
from training.loop.options import MachineOptions
from training.recipe import TrainingRecipe, read_recipe
from training.report.tables import comparison_table
from training.steps import Training, finetune, pretrain

if TYPE_CHECKING:
    from ccr_deploy.reporting.table import Table
    from training.data.open import TrainingData

ITERATIONS = (1, 2, 3)
SEEDS = range(5)
EPOCHS = {"several T": 1, "several T, twice the epochs": 2}
"""The trainings with several T, and how many times the recipe's epochs they have."""


class SeveralIterations(Record, frozen=True):
    """The comparison at each T, over all seeds."""

    schema_version: int
    machine: MachineState
    recipe: str
    comparisons: tuple[Comparison, ...]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Train all checkpoints in FOLDER, and write the comparison beside this script."""
    torch.set_num_threads(1)
    machine = machine_state()
    data = open_photos(48)
    found: dict[tuple[str, int], list[tuple[Evaluation, Evaluation]]] = {
        (name, number): [] for name in EPOCHS for number in ITERATIONS
    }
    for seed in SEEDS:
        recipe = structs.replace(read_recipe("photos-demo"), seed=seed)
        alone = {number: _trained(recipe, data, (number,), folder / f"seed-{seed}") for number in ITERATIONS}
        for name, factor in EPOCHS.items():
            several = _trained(_longer(recipe, factor), data, ITERATIONS, folder / f"seed-{seed}")
            for number in ITERATIONS:
                found[name, number].append((several, alone[number]))
    comparisons = tuple(
        compare(name, "this T alone", pairs, number) for (name, number), pairs in found.items()
    )
    result = SeveralIterations(1, machine, "photos-demo", comparisons)
    publish("several-iterations", result, several_iterations_table(result))


def several_iterations_table(result: SeveralIterations) -> Table:
    """Return the table, one row per T."""
    table = comparison_table(result.comparisons)
    return replace(table, note=f"{table.note}; {result.recipe}, {machine_words(result.machine)}")


def _longer(recipe: TrainingRecipe, factor: int) -> TrainingRecipe:
    phase = recipe.phase("finetune")
    return structs.replace(recipe, finetune=structs.replace(phase, epochs=factor * phase.epochs))


def _trained(
    recipe: TrainingRecipe, data: TrainingData, iterations: tuple[int, ...], folder: Path
) -> Evaluation:
    options = MachineOptions(save_every=100)
    compressor = pretrain(Training("pretrain", recipe, data, options, folder / "pretrained"))
    assert compressor is not None
    trained = structs.replace(recipe, iterations=iterations)
    epochs = recipe.phase("finetune").epochs
    name = f"T-{'-'.join(map(str, iterations))}-epochs-{epochs:g}"
    result = finetune(
        Training("finetune", trained, data, options, folder / name), encoder_weights([compressor])
    )
    assert result is not None
    return read_result(Evaluation, result.parent / EVALUATION_FILE)


if __name__ == "__main__":
    main()
