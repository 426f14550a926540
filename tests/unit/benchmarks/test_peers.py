"""Names, budgets, tables and plots of a comparison with peers, on synthetic samples."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from benchmarks.drawings import standalone
from benchmarks.peers.__main__ import Plan
from benchmarks.peers.plots import axis_end, plots, plotted_cell
from benchmarks.peers.results import (
    SCHEMA_VERSION,
    Cell,
    DisturbedCell,
    PeerBenchmark,
    PeerTiming,
    machine_slug,
)
from benchmarks.peers.rounds import affordable_rounds, is_slow, runs_in_a_round
from benchmarks.peers.tables import answers_table, first_table, ratio_of, times_tables
from benchmarks.where_time_goes import KindTime, LibraryProfile, WhereTimeGoes, by_kind, kinds_table
from ccr_deploy.benchmarking.environment import read_environment
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.roofline_results import MatrixRate

ENCODER, CHAIN, CLASSIFIER = Cell("encoder", 8, 1), Cell("chain", 8, 1), Cell("classifier", None, 16)


def machine(processor: str = "AMD EPYC (x86_64)", gpu: str | None = None) -> MachineState:
    return MachineState(processor, 2, 16.0, "Linux", "3.11", 0.0, None, gpu)


def timing(cell: Cell, candidate: str, milliseconds: float, precision: str = "fp32", **values) -> PeerTiming:
    group = "ours" if candidate.startswith("ours") else "plain export" if "plain" in candidate else "PyTorch"
    noise = np.random.default_rng(0).lognormal(0, 0.001, (6, 2))
    usual = {
        "schedule": None,
        "version": "1.2.3",
        "latency_ms_p50": milliseconds,
        "flipped_percent": 0.0 if cell.subject == "encoder" else None,
        "cosine": None if cell.subject == "encoder" else 1.0,
        "samples_ms": tuple(map(tuple, (milliseconds * noise).tolist())),
    }
    return PeerTiming(cell=cell, candidate=candidate, group=group, precision=precision, **{**usual, **values})


def comparison(
    *timings: PeerTiming,
    gpu: str | None = None,
    disturbed: tuple[DisturbedCell, ...] = (),
    reasons: tuple[str, ...] = (),
) -> PeerBenchmark:
    sets = ("AVX2", "AVX-512", "AVX512-VNNI")
    environment = read_environment(root=Path("no-root"))
    return PeerBenchmark(
        schema_version=SCHEMA_VERSION,
        created_by="ccr-deploy",
        model="ccr-layer1",
        machine=machine(gpu=gpu),
        instruction_sets=sets,
        max_isa=None,
        timings=timings,
        left_out=(),
        environment_before=environment,
        environment_after=environment,
        disturbed_cells=disturbed,
        unreliable_reasons=reasons,
    )


RESULT = comparison(
    timing(ENCODER, "PyTorch eager", 200),
    timing(ENCODER, "plain export, ONNX Runtime", 100),
    timing(ENCODER, "plain export, OpenVINO", 50, "bf16", flipped_percent=0.4),
    timing(ENCODER, "ours, onnxruntime fp32 iteration-major", 80),
    timing(ENCODER, "ours, openvino int8 iteration-major", 40, "int8", flipped_percent=0.5),
    timing(Cell("encoder", 16, 1), "PyTorch eager", 400, flipped_percent=0.0),
    timing(Cell("encoder", 16, 1), "ours, openvino int8 iteration-major", 80, "int8", flipped_percent=0.7),
    timing(Cell("encoder", 16, 1), "ours, onnxruntime fp32 iteration-major", 160),
    timing(CLASSIFIER, "PyTorch eager", 3),
    timing(CLASSIFIER, "ours, onnxruntime fp32", 4, cosine=0.999),
)


@pytest.mark.parametrize(
    ("processor", "sets", "max_isa", "expected"),
    [
        ("AMD EPYC (x86_64)", ("AVX2", "AVX-512", "AVX512-VNNI"), None, "amd-epyc-x86-64-avx512-vnni"),
        ("AMD EPYC (x86_64)", ("AVX2", "AVX-512"), "AVX2", "amd-epyc-x86-64-avx-512-at-most-avx2"),
        (
            "Intel(R) Xeon(R) Processor @ 2.60GHz (x86_64)",
            ("AVX2", "AVX512-VNNI", "AMX-INT8"),
            None,
            "intel-xeon-x86-64-amx-int8",
        ),
        (
            "implementer 0x41 part 0xd0c (aarch64)",
            ("FP16", "DotProd"),
            None,
            "implementer-0x41-part-0xd0c-aarch64-dotprod",
        ),
    ],
)
def test_a_result_is_named_after_machine_and_instruction_set(
    processor: str, sets: tuple[str, ...], max_isa: str | None, expected: str
) -> None:
    assert machine_slug(machine(processor), sets, max_isa) == expected


def test_a_result_of_a_gpu_is_named_after_it() -> None:
    assert comparison(gpu="NVIDIA H200").slug == "nvidia-h200"


def test_rounds_fit_into_the_time_but_have_a_least_number() -> None:
    assert affordable_rounds(seconds=100, round_seconds=10, fewest=3, most=12) == 10
    assert affordable_rounds(seconds=100, round_seconds=1, fewest=3, most=12) == 12
    assert affordable_rounds(seconds=1, round_seconds=10, fewest=3, most=12) == 3


def test_the_smallest_batch_size_has_at_least_seven_rounds() -> None:
    plan = Plan("demo", (8,), (16, 1), ("cpu",), minutes=1, rounds=12)
    assert [plan.fewest_rounds(batch) for batch in plan.batches] == [3, 7]
    assert Plan("demo", (8,), (1,), ("cpu",), minutes=1, rounds=2).fewest_rounds(1) == 2


def test_a_cell_is_slow_if_half_of_its_candidates_are() -> None:
    assert is_slow([600.0, 700.0, 100.0])
    assert not is_slow([200.0, 100.0, 60_000.0]), "torch.compile compiles in its first run"


def test_slow_candidates_run_once_in_a_round() -> None:
    assert [runs_in_a_round(milliseconds) for milliseconds in (0.1, 50, 1000)] == [10, 3, 1]


def test_the_first_table_compares_the_fastest_of_each_side_in_fp32() -> None:
    rows = {row[0]: row[1:] for row in first_table(RESULT).rows}
    assert rows["encoder, T=8, batch 1"] == (
        "6",
        "plain, ONNX Runtime",
        "100",
        "onnxruntime fp32 iteration-major",
        "80.0",
        "1.25",
        "1.25 – 1.25",
        "40.0",
        "2.00",
    )
    assert rows["classifier, batch 16"][5:] == ("0.75", "0.75 – 0.75", "", "")


def test_an_unreliable_run_has_times_but_no_ratios() -> None:
    table = first_table(comparison(*RESULT.timings, reasons=("other processes used 1.5 of 2 cores",)))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["encoder, T=8, batch 1"][4:] == ("80.0", "–", "–", "40.0", "–")
    assert "UNRELIABLE" in table.warning


def test_a_disturbed_cell_alone_has_no_ratios() -> None:
    disturbed = DisturbedCell(ENCODER, ("other processes used 1.5 of 2 cores while the encoder was timed",))
    table = first_table(comparison(*RESULT.timings, disturbed=(disturbed,)))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["encoder, T=8, batch 1"][4:] == ("80.0", "–", "–", "40.0", "–")
    assert rows["encoder, T=16, batch 1"][5] == "2.50"
    assert table.warning == (
        "no ratios of disturbed rows: encoder, T=8, batch 1 "
        "(other processes used 1.5 of 2 cores while the encoder was timed)"
    )


def test_a_row_whose_times_vary_too_much_has_no_ratio() -> None:
    unsteady = ((80.0, 300.0), (80.0, 80.0), (80.0, 80.0))
    timings = [
        timing(ENCODER, "PyTorch eager", 100, samples_ms=((100.0, 100.0),) * 3),
        timing(ENCODER, "ours, onnxruntime fp32 plain", 80, samples_ms=unsteady),
    ]
    (row,) = first_table(comparison(*timings)).rows
    assert row[5:8] == ("80.0", "–", "–")


def test_a_cell_without_engines_of_this_project_has_no_row() -> None:
    assert first_table(comparison(timing(ENCODER, "PyTorch eager", 100))).rows == ()


def test_ratios_are_those_of_the_medians_of_all_samples() -> None:
    # The medians of the rounds would give 20 / 10.
    slower = timing(ENCODER, "PyTorch eager", 30, samples_ms=((20, 20, 90), (20, 20, 90), (30, 30, 30)))
    faster = timing(ENCODER, "ours, onnxruntime fp32 plain", 10, samples_ms=((10, 10, 10),) * 3)
    ratio, interval = ratio_of(slower, faster)
    assert ratio == pytest.approx(3)
    assert interval.low <= ratio <= interval.high


def test_times_have_a_column_for_each_cell() -> None:
    encoder, classifier = times_tables(RESULT)
    assert encoder.columns == ("encoder", "T=8, batch 1", "T=16, batch 1")
    assert ("plain export, ONNX Runtime", "100", "") in encoder.rows
    assert classifier.columns == ("classifier", "batch 16")


def test_answers_are_the_worst_of_all_cells() -> None:
    rows = {row[0]: row[1:] for row in answers_table(RESULT).rows}
    assert rows["ours, openvino int8 iteration-major"] == ("0.700 %", "", "")
    assert rows["ours, onnxruntime fp32"] == ("", "0.99900", "")


def test_plots_show_the_usual_iterations_as_files_of_their_own() -> None:
    assert {timing.cell for timing in plotted_cell(RESULT, "encoder")} == {ENCODER}
    assert plotted_cell(RESULT, "chain") == []
    (plot,) = plots(RESULT).values()
    image = ET.fromstring(standalone(plot))  # noqa: S314 -- written above
    assert image.tag == "{http://www.w3.org/2000/svg}svg"
    assert "plain export, OpenVINO" in "".join(image.itertext())


def test_an_axis_has_room_for_the_number_beside_the_longest_bar() -> None:
    assert axis_end(0, 100, is_log=False) == pytest.approx(115)
    assert axis_end(1, 10_000, is_log=True) == pytest.approx(100_000)
    assert axis_end(0.0081, 0.81, is_log=True) > 0.81


def test_nodes_count_by_kind_with_their_fastest_run() -> None:
    times = {
        ("a", "Conv"): [3.0, 2.0],
        ("b", "Convolution"): [1.0],
        ("c", "Sigmoid"): [0.5],
        ("d", "Cast"): [0.25],
    }
    assert by_kind(times) == (
        KindTime("convolutions", 2, 3.0),
        KindTime("gates: Sigmoid, Tanh, products, sums", 1, 0.5),
        KindTime("others", 1, 0.25),
    )


def test_the_floor_is_the_work_at_the_matrix_rate() -> None:
    profile = LibraryProfile("ONNX Runtime", "1.2.3", (KindTime("convolutions", 2, 80.0),))
    rate = MatrixRate("fp32", 100.0, "product of 1024x1024 matrices")
    result = WhereTimeGoes(1, "ccr-layer1", machine(), ("AVX2",), "SSE41", 2, 7_000_000_000, rate, (profile,))
    assert result.floor_milliseconds == pytest.approx(70)
    table = kinds_table(result)
    assert table.rows[-1][1:] == ("70.00", "87.5 %", "")
    assert "AVX2, limited to SSE41" in table.note
