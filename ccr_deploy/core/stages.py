"""The stages that a model is deployed as, and the orders in which an encoder is unrolled."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["encoder", "classifier", "baseline"]
"""What an engine is built of; the baseline is a whole chain in one."""
STAGES: tuple[Stage, ...] = get_args(Stage)

ChainStage = Literal["encoder", "classifier"]
"""The two engines from an image to its label; the stages that are quantized and served."""
CHAIN_STAGES: tuple[ChainStage, ...] = get_args(ChainStage)

Schedule = Literal["iteration-major", "layer-major", "plain"]
"""The order in which the T iterations become graph nodes; `ccr_deploy.export.unroll` has the classes."""
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

DEFAULT_SCHEDULE: Schedule = "iteration-major"
"""What targets take unless they say otherwise, and what calibration names tensors by."""
NAIVE_SCHEDULE: Schedule = "plain"
"""What repeats in every iteration what no iteration changes: the measure of what the others save."""
EXPORTED_SCHEDULES: tuple[Schedule, ...] = (DEFAULT_SCHEDULE, "layer-major")
"""What a bundle gets unless it is asked for others."""
