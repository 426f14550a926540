"""The stages of a deployed model, and the unroll schedules of an encoder."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["encoder", "classifier", "baseline"]
"""The parts that engines are built from; the baseline is a whole chain in one engine."""
STAGES: tuple[Stage, ...] = get_args(Stage)

ChainStage = Literal["encoder", "classifier"]
"""The two stages from an image to its label: those that are quantized and served."""
CHAIN_STAGES: tuple[ChainStage, ...] = get_args(ChainStage)

Subject = Literal["encoder", "classifier", "chain"]
"""What is timed: a stage, or the chain from image to logits (with the conventional chain, if any)."""
SUBJECT_STAGES: dict[Subject, tuple[Stage, ...]] = {
    "chain": CHAIN_STAGES,
    "encoder": ("encoder",),
    "classifier": ("classifier",),
}
"""The stages that run one after the other."""

Schedule = Literal["iteration-major", "layer-major", "plain"]
"""The order in which the T iterations become graph nodes, implemented in `ccr_deploy.export.unroll`."""
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

DEFAULT_SCHEDULE: Schedule = "iteration-major"
"""The schedule of targets that name none, and the one that calibration runs on."""
NAIVE_SCHEDULE: Schedule = "plain"
"""The schedule without hoisting: it repeats in every iteration what does not depend on the iteration.

A benchmark against it shows what the other schedules save."""
EXPORTED_SCHEDULES: tuple[Schedule, ...] = (DEFAULT_SCHEDULE, "layer-major")
"""The schedules that `export` writes by default."""
