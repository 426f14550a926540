"""Calibration recipes: shipped ones are complete, wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS
from ccr_deploy.models.presets import PRESETS
from ccr_deploy.quantization.recipe import CalibrationRecipe, read_recipe

RECIPES = sorted((Path(__file__).parents[3] / "calibration").glob("*.toml"))


def test_every_preset_without_a_decoder_has_a_recipe() -> None:
    names = {name for name, config in PRESETS.items() if not config.is_baseline}
    assert {path.stem for path in RECIPES} == names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_name_images_their_number_and_a_method(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.images
    assert recipe.samples >= 256
    assert recipe.method_name == "percentile 99.99"
    assert recipe.keep_high_precision == HIGH_PRECISION_LAYERS


def test_a_method_is_named_with_its_parameter_if_it_has_one() -> None:
    assert CalibrationRecipe(method="percentile", percentile=99.5).method_name == "percentile 99.5"
    assert CalibrationRecipe(method="entropy").method_name == "entropy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample = 3", "field sample"),
        ("samples = 0", "field samples"),
        ('method = "magic"', "field method"),
        ("percentile = 50", "field percentile"),
        ("samples = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(WrongUsageError) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match=r"none\.toml: no such file"):
        read_recipe(tmp_path / "none.toml")
