"""The data that a recipe is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.presets import default_preprocessing
from training.data.augmentation import Augmentation
from training.data.folders import open_folder
from training.data.open import open_photos

if TYPE_CHECKING:
    from pathlib import Path

    from training.data.open import TrainingData
    from training.recipe import Phase, TrainingRecipe


def open_data(
    recipe: TrainingRecipe, phase: Phase | None, folder: Path | None, class_list: Path | None
) -> TrainingData:
    """Open the data of a recipe.

    Args:
        recipe: the recipe, for the kind of data and the image size.
        phase: the training, for its augmentation; None to test only.
        folder: training and test images.
        class_list: the classes to use; None for all.

    Raises:
        WrongUsageError: if a folder is needed and not given, or given and not needed.
        ImageError: if the folder or an image in it cannot be used.
    """
    if recipe.data == "photos":
        if folder or class_list:
            raise WrongUsageError("the recipe is for scikit-image's photos: omit --data and --classes")
        if phase and phase.has_augmentation:
            raise WrongUsageError(
                "the recipe is for scikit-image's photos, which have crops of their own: omit crop_scale, "
                "mirror and color_jitter"
            )
        return open_photos(recipe.baseline_chain(classes=2).image_height)
    if folder is None:
        raise WrongUsageError("the recipe is for your own images: give --data DIR with train/ and val/ in it")
    # For the image size and the preprocessing, which do not depend on the classes.
    model = recipe.baseline_chain(classes=2)
    augmentation = (
        Augmentation(crop_scale=phase.crop_scale, mirror=phase.mirror, color_jitter=phase.color_jitter)
        if phase
        else None
    )
    return open_folder(folder, class_list, model, default_preprocessing(model), augmentation)
