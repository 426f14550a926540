"""The table of precisions: each row is complete wherever it is used."""

from __future__ import annotations

from typing import get_args

import pytest

from ccr_deploy.core.precisions import CALIBRATED, PRECISIONS, EnginePrecision, Precision, lowest_precision
from ccr_deploy.quantization.converters import CALIBRATED_CONVERTERS, CONVERTERS
from tests.support.cli_runner import run


def test_every_precision_has_a_row_in_the_same_order() -> None:
    assert tuple(PRECISIONS) == get_args(EnginePrecision)
    graphs = dict.fromkeys(row.graph for row in PRECISIONS.values())
    assert tuple(graphs) == get_args(Precision)


def test_every_graph_precision_except_fp32_has_one_converter() -> None:
    assert tuple(CALIBRATED_CONVERTERS) == CALIBRATED
    assert {*CONVERTERS, *CALIBRATED_CONVERTERS, "fp32"} == set(get_args(Precision))
    assert not CONVERTERS.keys() & CALIBRATED_CONVERTERS.keys()


def test_a_precision_is_compared_with_higher_precisions() -> None:
    for row in PRECISIONS.values():
        for other in row.compared_with:
            assert lowest_precision([other, row.name]) is row


@pytest.mark.parametrize("command", ["build-engine", "verify", "benchmark"])
def test_every_precision_is_an_option_in_the_order_of_the_rows(command: str) -> None:
    shown = run(command, "--help").stdout
    places = [shown.index(f"--{row.name} ") for row in PRECISIONS.values()]
    assert places == sorted(places)


def test_the_lowest_precision_is_the_last_row() -> None:
    assert lowest_precision(["int8", "fp32"]).name == lowest_precision(["bf16", "int8"]).name == "int8"
    assert lowest_precision(["fp16", "bf16", "fp32"]).name == "bf16"
