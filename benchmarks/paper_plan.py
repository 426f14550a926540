"""What the paper's table would cost: estimated hours of the recipes for ImageNet-100.

Nothing is run here: the hours are arithmetic on the recipes, on the rate that ``benchmarks.training_speed``
measured on a CPU, and on assumed rates of GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.training_speed import PARTS
from ccr_deploy.backends.roofline import find_limits
from ccr_deploy.models.presets import preset
from training.estimate import TrainingCost, TrainingRate, cost_table, training_macs
from training.recipe import read_recipe

if TYPE_CHECKING:
    from benchmarks.training_speed import TrainingSpeed
    from ccr_deploy.reporting.table import Table
    from training.estimate import TrainingPhase

IMAGES = 130_000
"""At most: 100 classes of at most 1,300 training images."""
MEASURED_MODEL = "ccr-layer1"
GPUS = ("h100", "rtx4090")
ASSUMED_SHARE = 0.3
"""The share of a GPU's BF16 peak that training is assumed to reach."""


def plan_table(speed: TrainingSpeed) -> Table:
    """Return the hours of every training of the paper's table, from a measured speed on a CPU."""
    rates = [_measured(speed), *(TrainingRate.assumed(find_limits(gpu), ASSUMED_SHARE) for gpu in GPUS)]
    costs = [_cost("imagenet100-layer1", "pretrain")]
    costs += [_cost(f"imagenet100-layer{number}", "finetune") for number in (1, 2, 3)]
    costs.append(_cost("imagenet100-baseline", "baseline"))
    return cost_table(costs, rates)


def _cost(recipe_name: str, phase: TrainingPhase) -> TrainingCost:
    recipe = read_recipe(recipe_name)
    config = recipe.chain(classes=100) if phase == "finetune" else recipe.baseline_chain(classes=100)
    macs = training_macs(phase, config, recipe.decoder)
    name = "the compressor of all" if phase == "pretrain" else recipe.preset
    return TrainingCost(name, phase, macs, IMAGES, round(recipe.phase(phase).epochs))


def _measured(speed: TrainingSpeed) -> TrainingRate:
    model = next(model for model in speed.models if model.model.startswith(MEASURED_MODEL))
    _, finetune_step = PARTS
    step = next(step for step in model.steps if (step.part, step.candidate) == (finetune_step, "forward"))
    macs = training_macs("finetune", preset(MEASURED_MODEL))
    name = f"{speed.machine.processor}, {model.threads} threads, FP32"
    return TrainingRate.measured(name, step.images_per_second, macs)
