"""Names, budgets, tables and plots of a comparison with peers, on synthetic samples."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from benchmarks.drawings import standalone
from benchmarks.peers.plots import plots, plotted_cell
from benchmarks.peers.results import Cell, PeerBenchmark, PeerTiming, machine_slug
from benchmarks.peers.rounds import affordable_rounds, runs_in_a_round
from benchmarks.peers.tables import answers_table, first_table, times_tables
from benchmarks.where_time_goes import KindTime, LibraryProfile, WhereTimeGoes, by_kind, kinds_table
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.metrics import Interval

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
        "speedup": 200 / milliseconds,
        "speedup_interval": Interval(1, 2),
        "flipped_percent": 0.0 if cell.subject == "encoder" else None,
        "cosine": None if cell.subject == "encoder" else 1.0,
        "samples_ms": tuple(map(tuple, (milliseconds * noise).tolist())),
    }
    return PeerTiming(cell=cell, candidate=candidate, group=group, precision=precision, **{**usual, **values})


def comparison(*timings: PeerTiming, gpu: str | None = None) -> PeerBenchmark:
    sets = ("AVX2", "AVX-512", "AVX512-VNNI")
    return PeerBenchmark(1, "ccr-deploy", "ccr-layer1", machine(gpu=gpu), sets, None, timings, (), ())


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


def test_rounds_fit_into_the_time_but_are_at_least_three() -> None:
    assert affordable_rounds(seconds=100, round_seconds=10, most=12) == 10
    assert affordable_rounds(seconds=100, round_seconds=1, most=12) == 12
    assert affordable_rounds(seconds=1, round_seconds=10, most=12) == 3
    assert affordable_rounds(seconds=1, round_seconds=10, most=2) == 2


def test_slow_candidates_run_once_in_a_round() -> None:
    assert [runs_in_a_round(milliseconds) for milliseconds in (0.1, 50, 1000)] == [10, 3, 1]


def test_the_first_table_compares_the_fastest_of_each_side_in_fp32() -> None:
    rows = {row[0]: row[1:] for row in first_table(RESULT).rows}
    assert rows["encoder, T=8, batch 1"] == (
        "plain, ONNX Runtime",
        "100",
        "onnxruntime fp32 iteration-major",
        "80.0",
        "1.25",
        "1.25 – 1.25",
        "40.0",
        "2.00",
    )
    assert rows["classifier, batch 16"][4:] == ("0.75", "0.75 – 0.75", "", "")


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
    result = WhereTimeGoes(1, "ccr-layer1", machine(), (), 2, 7_000_000_000, 200.0, (profile,))
    assert result.floor_milliseconds == pytest.approx(70)
    assert kinds_table(result).rows[-1][1:] == ("70.00", "87.5 %", "")
