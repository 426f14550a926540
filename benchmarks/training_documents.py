"""The tables about trainings in the site's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.paper_plan import plan_table
from benchmarks.photos_trainings import PhotosTrainings, photos_tables
from benchmarks.scaffold import read_result
from benchmarks.several_iterations import SeveralIterations, several_iterations_table
from benchmarks.training_loop import LoopSpeed, training_loop_table
from benchmarks.training_speed import TrainingSpeed, training_speed_table

if TYPE_CHECKING:
    from ccr_deploy.reporting.table import Table


def training_tables() -> dict[str, Table]:
    """Return every quoted table about trainings, by its marker's name."""
    photos = photos_tables(read_result("photos-trainings", PhotosTrainings))
    speed = read_result("training-speed", TrainingSpeed)
    return {
        "photos-trainings": photos[0],
        "photos-trainings-paper": photos[1],
        "several-iterations": several_iterations_table(read_result("several-iterations", SeveralIterations)),
        "training-speed": training_speed_table(speed),
        "training-loop": training_loop_table(read_result("training-loop", LoopSpeed)),
        "paper-plan": plan_table(speed),
    }
