"""The precisions of graphs and engines: one row each, from the highest to the lowest.

To add a precision, add a row here, a converter in `ccr_deploy.quantization.converters`, and support in the
backends that have it. Options, orders, reports and the columns of the gates are derived from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Precision = Literal["fp32", "fp16", "int8"]
"""The precision of a graph."""

EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]
"""The precision of an engine. BF16 has no graph: a backend that supports it runs the FP32 graph in BF16."""

Rounding = Literal["fp16", "bf16"]
"""The type that an emulation in FP32 rounds to after each operator that the graph computes in FP16."""


@dataclass(frozen=True)
class PrecisionRow:
    """Properties of one precision that hold for every backend.

    Attributes:
        name: the precision of the engine.
        graph: the precision of the bundle's graph that the engine is built from.
        emulated_graph: the precision of the graph that emulates the engine on a CPU, which computes in FP32.
        gates: the precision whose gate limits apply.
        rounding: the type that the emulation rounds to; None runs `emulated_graph` as it is.
        compared_with: precisions that the engine must be faster than: the first one that the machine has
            instructions for counts, FP32 if there is none.
        is_calibrated: whether the graph is made from a calibration table.
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
        """The name as shown in tables and messages, such as ``FP16``."""
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
"""All precisions, from the highest to the lowest."""

CALIBRATED: tuple[Precision, ...] = tuple(row.graph for row in PRECISIONS.values() if row.is_calibrated)
"""The precisions whose graphs the command `calibrate` makes."""


def lowest_precision(precisions: Collection[EnginePrecision]) -> PrecisionRow:
    """Return the row of the lowest of several precisions."""
    return PRECISIONS[max(precisions, key=list(PRECISIONS).index)]
