from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.presets import PAPER_PRESETS, preset
from training.cli.common import changed_recipe
from training.recipe import RECIPES, Phase, read_recipe

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_of_a_shipped_recipe_says_where_it_comes_from(name: str) -> None:
    for line in (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            assert len(line.partition("  # ")[2]) >= 6, line


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_valid_and_have_a_model(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.pretrain is not None
    config = recipe.baseline_chain(classes=7)
    assert config.is_baseline
    assert config.classifier.classes == 7
    assert config.iterations in recipe.iterations
    if recipe.finetune:
        assert recipe.chain(classes=7).encoder == config.encoder


def test_every_model_of_the_paper_has_a_recipe() -> None:
    names = [name.replace("ccr-", "imagenet100-") for name in PAPER_PRESETS]
    assert set(names) <= set(SHIPPED)
    for name, model in zip(names, PAPER_PRESETS, strict=True):
        recipe = read_recipe(name)
        assert recipe.preset == model
        trained = recipe.baseline_chain(classes=1000)
        if preset(model).is_baseline:
            assert trained == preset(model)
        else:
            assert recipe.chain(classes=100) == preset(model)


def test_a_recipe_file_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((RECIPES / "photos-demo.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert read_recipe(str(path)) == read_recipe("photos-demo")


def test_an_unknown_name_suggests_the_shipped_ones() -> None:
    with pytest.raises(WrongUsageError, match=r"unknown recipe 'photos-dmo'.*did you mean photos-demo"):
        read_recipe("photos-dmo")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[finetune]\nepochs = 1\nbatch = 1\nlearning_rate = 1.0\nmomentum = 0.9", r"finetune\.momentum"),
        ("[finetune]\nepochs = 0\nbatch = 1\nlearning_rate = 1.0", r"finetune\.epochs"),
        ("[finetune]\nepochs = 1\nbatch = 1\nlearning_rate = nan", r"finetune\.learning_rate"),
        ("iterations = []", "iterations"),
        ("iterations = [3, 3]", "iterations"),
        ('cut = "layer4"', "cut"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f'description = "wrong"\npreset = "demo"\n{line}\n', encoding="utf-8")
    with pytest.raises(WrongUsageError, match=rf"wrong\.toml: .*{message}") as caught:
        read_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('description = "wrong"\npreset = "dem"\n', encoding="utf-8")
    with pytest.raises(WrongUsageError, match=r"wrong\.toml: .*unknown preset 'dem': did you mean demo\?"):
        read_recipe(str(path))


def test_a_missing_section_is_named() -> None:
    with pytest.raises(WrongUsageError, match=r"no section \[finetune\]"):
        read_recipe("imagenet100-baseline").phase("finetune")


def test_a_baseline_preset_has_no_cut() -> None:
    with pytest.raises(WrongUsageError, match=r"ccr-baseline is a baseline without a cut"):
        read_recipe("imagenet100-baseline").chain(classes=100)


@pytest.mark.parametrize(
    ("epochs", "images", "steps"), [(2, 100, 20), (0.5, 100, 5), (0.01, 100, 1), (1, 105, 10)]
)
def test_steps_follow_from_epochs(epochs: float, images: int, steps: int) -> None:
    assert Phase(epochs=epochs, batch=10, learning_rate=1.0).steps(images) == steps


def test_the_command_line_replaces_what_it_gives() -> None:
    recipe = read_recipe("photos-demo")
    assert changed_recipe(recipe, "finetune", iterations=None, seed=None, epochs=None) == recipe
    changed = changed_recipe(recipe, "finetune", iterations="3,1", seed=4, epochs=0.5)
    assert changed.iterations == (1, 3)
    assert changed.seed == 4
    assert changed.phase("finetune").epochs == 0.5
    assert changed.phase("pretrain") == recipe.phase("pretrain")
    with pytest.raises(WrongUsageError, match="--epochs 0: give a number above 0"):
        changed_recipe(recipe, "finetune", iterations=None, seed=None, epochs=0)
    with pytest.raises(WrongUsageError, match="--iterations '0'"):
        changed_recipe(recipe, "finetune", iterations="0", seed=None, epochs=None)
