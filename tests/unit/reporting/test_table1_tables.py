"""Tables of the paper's Table 1: every row beside the paper's, and what bounds the time."""

from __future__ import annotations

from msgspec.structs import replace

from ccr_deploy.benchmarking.paper import PAPER_TABLE_1
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.table1_results import Table1, Table1Model, Table1Time
from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.table1_tables import bound_note, counts_table, parts_table, times_table

MACHINE = MachineState("a processor", 2, 8.0, "Linux", "3.11", 0.0, None)
MACS = {
    "ccr-baseline": (10_000, 140_000),
    "ccr-layer1": (7_500, 1_500),
    "ccr-layer2": (7_500, 1_100),
    "ccr-layer3": (7_500, 660),
}


def time(model: str, part: str, runtime: str, milliseconds: float, less: float | None = None) -> Table1Time:
    return Table1Time(
        model=model,
        part=part,
        runtime=runtime,
        precision="fp32",
        runs=6,
        latency_ms_p50=milliseconds,
        latency_ms_p50_interval=Interval(milliseconds - 1, milliseconds + 1),
        latency_ms_p99=milliseconds + 2,
        peak_memory_mib=100.0,
        reduction_percent=less,
        reduction_percent_interval=Interval(less - 1, less + 1) if less else None,
        reduction_from_eager_percent=None,
    )


FOUND = Table1(
    schema_version=1,
    created_by="ccr-deploy",
    target="cpu",
    image_height=224,
    image_width=224,
    iterations=8,
    threads=2,
    rounds=3,
    machine=MACHINE,
    models=tuple(
        Table1Model(name, PAPER_TABLE_1[name].parameters, *MACS[name], PAPER_TABLE_1[name]) for name in MACS
    ),
    times=(
        time("ccr-baseline", "chain", "PyTorch eager", 4000),
        time("ccr-baseline", "chain", "onnxruntime", 2000),
        time("ccr-layer1", "chain", "PyTorch eager", 200, 95.0),
        time("ccr-layer1", "chain", "onnxruntime", 100, 95.0),
        time("ccr-layer1", "encoder", "onnxruntime", 80),
        time("ccr-layer1", "classifier", "onnxruntime", 19),
        time("ccr-layer3", "chain", "PyTorch eager", 180, 95.5),
        time("ccr-layer3", "chain", "onnxruntime", 90, 95.5),
        time("ccr-layer3", "classifier", "onnxruntime", 9),
    ),
    left_out=("FP16: not here",),
    reliable=True,
)


def test_each_row_has_the_papers_figures_beside_it() -> None:
    table = times_table(FOUND)
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["ccr-layer3", "onnxruntime FP32"] == (
        "90.0", "89.0 – 91.0", "95.5 %", "94.5 – 96.5", "–", "9.0", "79 %",
    )  # fmt: skip
    assert rows["ccr-baseline", "PyTorch eager FP32"][-2:] == ("42.8", "–")
    assert "left out: FP16: not here" in table.note
    assert "a processor" in table.note


def test_rows_are_grouped_by_runtime() -> None:
    assert [row[1] for row in times_table(FOUND).rows] == ["PyTorch eager FP32"] * 3 + [
        "onnxruntime FP32"
    ] * 3


def test_the_encoder_is_the_same_in_all_models() -> None:
    assert parts_table(FOUND).rows == (
        ("ccr-layer1", "onnxruntime FP32", "80.0", "19.0", "100.0", "80 %"),
        ("ccr-layer3", "onnxruntime FP32", "80.0", "9.0", "90.0", "89 %"),
    )


def test_the_note_says_what_bounds_the_time() -> None:
    counted, bound = bound_note(FOUND).split("; ")
    assert counted == (
        "from ccr-layer1 to ccr-layer3 multiply-accumulates fall by 9 % and the paper's time falls 2.6 times"
    )
    assert bound == (
        "in onnxruntime FP32 it falls 1.11 times: the encoder, the same in all, takes 80 % of "
        "ccr-layer1's time, so that a chain without a classifier would be 1.25 times as fast"
    )


def test_an_unreliable_run_compares_no_times() -> None:
    unreliable = replace(FOUND, reliable=False, unreliable_reasons=("busy",))
    assert "onnxruntime" not in bound_note(unreliable)
    assert times_table(unreliable).warning == (
        "UNRELIABLE, no reductions: busy: measure again on an idle machine"
    )


def test_counts_are_beside_the_papers() -> None:
    rows = counts_table(FOUND).rows
    assert all(row[1] == row[2] for row in rows)
    assert [row[-1] for row in rows] == ["–", "94.0 %", "94.3 %", "94.6 %"]
