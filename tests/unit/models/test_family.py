"""Signal, iteration and layer in the names of nodes."""

from __future__ import annotations

import pytest

from ccr_deploy.models.family import iteration_of, last_hidden_states, layer_of, name_in_graphs, signal_of


@pytest.mark.parametrize(
    ("name", "signal", "iteration"),
    [
        ("cell1/t3/hidden_state", "cell1/hidden_state", 3),
        ("cell1/t12/hidden_state", "cell1/hidden_state", 12),
        ("stem/t2", "stem", 2),
        ("stem", "stem", None),
        ("cell1/tail", "cell1/tail", None),
    ],
)
def test_a_name_contains_signal_and_iteration(name: str, signal: str, iteration: int | None) -> None:
    assert (signal_of(name), iteration_of(name)) == (signal, iteration)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("cell2/t3/hidden_conv", "cell2/hidden_conv"),
        ("cell2/t3/input_conv", "cell2/input_conv"),
        ("stem/t2", "stem"),
        ("cell1/t2/input_conv", "stem"),
        ("cell1/input_conv", "stem"),
        ("layer2/0/downsample/0", "layer2"),
        ("layer4/1/add", "layer4"),
        ("sampling/conv1", "sampling/conv1"),
        ("binarizer", "binarizer"),
    ],
)
def test_a_residual_stage_is_one_layer_and_so_are_stem_and_first_input_convolution(
    node: str, layer: str
) -> None:
    assert layer_of(node) == layer


def test_the_last_cells_hidden_states_are_found_by_iteration() -> None:
    names = [
        f"cell{cell}/t{t}/{signal}"
        for cell in (1, 2, 10)
        for t in (0, 1, 2, 12)
        for signal in ("hidden_state", "add")
    ]
    expected = {t: f"cell10/t{t}/hidden_state" for t in (1, 2, 12)}
    assert last_hidden_states(names) == expected
    assert last_hidden_states(["sampling/conv1"]) == {}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("stem", "stem"),
        ("cells.0.hidden_conv", "cell1/hidden_conv"),
        ("cells.11.input_conv", "cell12/input_conv"),
        ("binarizer.conv", "binarizer"),
        ("sampling.conv2", "sampling/conv2"),
        ("layer4.0.downsample.0", "layer4/0/downsample/0"),
    ],
)
def test_a_module_has_one_name_in_graphs(module: str, name: str) -> None:
    assert name_in_graphs(module) == name
