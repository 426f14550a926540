"""The precisions that graphs and engines have: a row each, from the finest to the coarsest.

A precision is added by its row here, by its converter in `ccr_deploy.quantization.converters`, and in the
backends that compute in it. Options, orders, reports and the columns of the gates are made from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Precision = Literal["fp32", "fp16", "int8"]
"""How a graph computes."""

EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]
"""How an engine computes. BF16 has no graph of its own: a backend that has it runs the FP32 graph so."""

Rounding = Literal["fp16", "bf16"]
"""To what an emulation rounds, in FP32, what a graph computes in FP16."""


@dataclass(frozen=True)
class PrecisionRow:
    """What holds for one precision, whatever the backend.

    An engine is built from the bundle's graph of the precision `graph`; `is_calibrated` tells whether that is
    made from a calibration table. On a CPU, which computes FP16 in FP32, an engine is emulated by the graph
    `emulated_graph` with `rounding`, or as it is. Its gates have the limits of the precision `gates`.
    `compared_with` are the precisions that it must be faster than: the first that the machine has
    instructions for, else FP32.
    """

    name: EnginePrecision
    graph: Precision
    emulated_graph: Precision
    gates: EnginePrecision
    rounding: Rounding | None = None
    compared_with: tuple[EnginePrecision, ...] = ()
    is_calibrated: bool = False

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.upper()


_ROWS = (
    PrecisionRow("fp32", graph="fp32", emulated_graph="fp32", gates="fp32"),
    PrecisionRow("fp16", graph="fp16", emulated_graph="fp16", gates="fp16", rounding="fp16"),
    PrecisionRow("bf16", graph="fp32", emulated_graph="fp16", gates="bf16", rounding="bf16"),
    PrecisionRow(
        "int8",
        graph="int8",
        emulated_graph="int8",
        gates="int8",
        rounding="fp16",
        compared_with=("fp16",),
        is_calibrated=True,
    ),
)
PRECISIONS: Mapping[EnginePrecision, PrecisionRow] = {row.name: row for row in _ROWS}
"""From the finest to the coarsest."""

CALIBRATED: tuple[Precision, ...] = tuple(row.graph for row in PRECISIONS.values() if row.is_calibrated)
"""The precisions of the graphs that `calibrate` makes."""


def lowest_precision(precisions: Collection[EnginePrecision]) -> PrecisionRow:
    """The row of the coarsest of some precisions."""
    return PRECISIONS[max(precisions, key=list(PRECISIONS).index)]
