"""Options that the trainings share."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import structs

from ccr_deploy.cli.common import TerminalProgress, combined, output_options, path_option
from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.iterations import parse_iterations
from training.loop.options import LIGHTNING_PRECISION, MachineOptions, Precision, processes_of_torchrun
from training.recipe import read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.recipe import Step, TrainingRecipe

    Command = TypeVar("Command", bound=Callable[..., Any])

recipe_option = click.option(
    "--recipe", "recipe_name", metavar="NAME|FILE", required=True, help="Shipped recipe, or a TOML file."
)
data_options = combined(
    path_option("--data", "DIR", "Folder with train/ and val/; not for recipes of photos."),
    path_option("--classes", "FILE", "Class list: use these classes alone, such as ImageNet-100's."),
)
output_option = path_option(
    "--output", "DIR", "Folder for the result, its state and its logs.", required=True
)

iterations_option = click.option(
    "--iterations", metavar="T,T,…", help="Train these T: each batch draws one.  [recipe's]"
)
_learning_options = combined(
    click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.  [recipe's]"),
    click.option("--epochs", type=float, help="Number of epochs, for a trial.  [recipe's]"),
)
_machine_options = combined(
    click.option("--devices", type=click.IntRange(min=1), help="Processes.  [default: one per GPU]"),
    click.option(
        "--precision",
        type=click.Choice(tuple(LIGHTNING_PRECISION)),
        default="fp32",
        show_default=True,
        help="bf16: autocast of convolutions and matrix products.",
    ),
    click.option("--micro-batch", type=click.IntRange(min=1), help="Images per process at once."),
    click.option(
        "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Loader processes."
    ),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each process."),
    click.option("--compile", "compiled", is_flag=True, help="Compile the networks with torch.compile."),
    click.option("--channels-last", is_flag=True, help="Use the memory layout NHWC."),
    click.option(
        "--save-every",
        type=click.IntRange(min=1),
        default=500,
        show_default=True,
        help="Steps between two saved states.",
    ),
    click.option(
        "--log-every",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Steps between two logged values.",
    ),
)
_MACHINE = (
    "devices", "precision", "micro_batch", "workers", "threads", "compiled", "channels_last", "save_every",
    "log_every",
)  # fmt: skip
_check_option = click.option("--check", is_flag=True, help="Check the data, and train nothing.")


def training_command(step: Step) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of a training.

    The command gets the `training.steps.Training` that they describe as its first argument. One that can
    train several T has `iterations_option` too.

    Args:
        step: the training.
    """

    def decorate(command: Command) -> Command:
        @combined(
            recipe_option,
            data_options,
            output_option,
            _learning_options,
            _machine_options,
            _check_option,
            output_options,
        )
        @functools.wraps(command)
        def wrapped(**typed: Any) -> object:  # noqa: ANN401 -- what click parsed
            learning = {name: typed.pop(name, None) for name in ("iterations", "seed", "epochs")}
            recipe = changed_recipe(read_recipe(typed.pop("recipe_name")), step, **learning)
            options = machine_options(**{name: typed.pop(name) for name in _MACHINE})
            # Imported late: `--help` is quick, and a wrong recipe is reported at once.
            from training.loop.folder import one_training_in
            from training.recipe_data import open_data
            from training.steps import Training

            data = open_data(recipe, recipe.phase(step), typed.pop("data"), typed.pop("classes"))
            training = Training(step, recipe, data, options, typed.pop("output"), TerminalProgress())
            if typed.pop("check"):
                from training.cli.check import check

                check(training, as_json=typed["as_json"])
                return None
            with one_training_in(training.folder):
                return command(training, **typed)

        return wrapped  # type: ignore[return-value]

    return decorate


def changed_recipe(
    recipe: TrainingRecipe, step: Step, iterations: str | None, seed: int | None, epochs: float | None
) -> TrainingRecipe:
    """Return a recipe with what was given on the command line.

    Args:
        recipe: the recipe.
        step: the training whose epochs are changed.
        iterations: every T, separated by commas; None for the recipe's, as the others.
        seed: the seed.
        epochs: the number of epochs.

    Raises:
        WrongUsageError: if the recipe has no such training, or a value is wrong.
    """
    phase = recipe.phase(step)
    if epochs is not None:
        if epochs <= 0:
            raise WrongUsageError(f"--epochs {epochs:g}: give a number above 0")
        recipe = structs.replace(recipe, **{step: structs.replace(phase, epochs=epochs)})
    if seed is not None:
        recipe = structs.replace(recipe, seed=seed)
    if iterations is not None:
        recipe = structs.replace(recipe, iterations=parse_iterations(iterations, "--iterations"))
    return recipe


def machine_options(
    devices: int | None,
    precision: Precision,
    micro_batch: int | None,
    workers: int,
    threads: int | None,
    *,
    compiled: bool,
    channels_last: bool,
    save_every: int,
    log_every: int,
) -> MachineOptions:
    """Return how a training uses the machine; under torchrun, its number of processes counts.

    Args:
        devices: processes on this node; None for one per GPU, or one on a CPU.
        precision: that of convolutions and matrix products.
        micro_batch: images that a process takes at once; None for all of its part of the batch.
        workers: loader processes for each process.
        threads: CPU threads of each process; None for PyTorch's default.
        compiled: whether to compile the networks.
        channels_last: whether to use the memory layout NHWC.
        save_every: steps between two saved states.
        log_every: steps between two logged values.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        # Read by the processes that Lightning starts; it divides the cores among them otherwise.
        os.environ["OMP_NUM_THREADS"] = str(threads)
    nodes = 1
    if started := processes_of_torchrun():
        devices, nodes = started
    return MachineOptions(
        devices=devices or max(1, torch.cuda.device_count()),
        nodes=nodes,
        precision=precision,
        micro_batch=micro_batch,
        workers=workers,
        compiled=compiled,
        channels_last=channels_last,
        save_every=save_every,
        log_every=log_every,
    )
