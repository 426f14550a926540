"""Tables and lines about results, from synthetic records."""

import dataclasses
from typing import get_args

import pytest
from msgspec.structs import replace

from ccr_deploy.benchmarking.reliability import without_speedups
from ccr_deploy.benchmarking.results import (
    BenchmarkReport,
    FastestPyTorch,
    GpuLoad,
    GpuState,
    MachineState,
    Timing,
)
from ccr_deploy.core.metrics import Interval
from ccr_deploy.export.description import LayerDescription, ModelDescription
from ccr_deploy.reporting.html import html
from ccr_deploy.reporting.markdown import markdown
from ccr_deploy.reporting.plots import speedup_plot
from ccr_deploy.reporting.results import Results
from ccr_deploy.reporting.table import Table
from ccr_deploy.reporting.tables import (
    benchmark_tables,
    description_table,
    layer_table,
    summary_table,
)
from ccr_deploy.reporting.verification_tables import CAUSES, verification_tables
from ccr_deploy.verification.results import (
    AccuracyChange,
    Cause,
    ChainAccuracy,
    CodeParity,
    EngineSummary,
    Finding,
    LogitParity,
    VerificationReport,
)
from tests.support.results import chain_accuracy, code_parity, gate_result, logit_parity


def logits(stage: str, level: str, same: int) -> LogitParity:
    return logit_parity(stage, level, images=40, max_difference=1.3e-6, min_cosine=0.99999949, same_top1=same)


def code(level: str, flipped: int, equal: int, against: str = "pytorch") -> CodeParity:
    return code_parity(
        level,
        against,
        images=40,
        bits=320,
        flipped_bits=flipped,
        equal_payloads=equal,
        median_flipped_margin=0.01 if flipped else None,
    )


def accuracy(chain: str, top1: float) -> ChainAccuracy:
    return chain_accuracy(
        chain,
        top1,
        images=40,
        groups=8,
        top1_interval_percent=Interval(61.234, 88.0),
        top5_percent=95.04,
        top5_interval_percent=Interval(90.0, 99.0),
    )


def engine(stage: str) -> EngineSummary:
    return EngineSummary(
        stage=stage,
        precision="fp32",
        schedule=None,
        backend="onnxruntime",
        backend_version="1.20.0",
        device="a CPU",
        engine_sha256="ab" * 32,
    )


VERIFICATION = VerificationReport(
    schema_version=2,
    created_by="test",
    bundle="bundle",
    contract_id="0123456789abcdef",
    weights_sha256="0" * 64,
    iterations=8,
    trained_iterations=(8,),
    warnings=(),
    target="cpu",
    images="40 images",
    images_sha256="1" * 64,
    image_count=40,
    codes=(code("graph", 0, 40), code("engine", 2, 38), code("engine", 3, 37, against="graph")),
    logits=(
        logits("classifier", "graph", 40),
        logits("chain", "graph", 40),
        logits("classifier", "engine", 40),
        logits("chain", "engine", 39),
    ),
    accuracies=(accuracy("pytorch", 75.0), accuracy("graph", 75.0), accuracy("engine", 72.54)),
    accuracy_changes=(AccuracyChange("engine", 40, 2, 1, 1.0, 2.46, Interval(-1.0, 6.0)),),
    non_finite=(),
    gates=(
        gate_result("unexplained flips", "graph", 0, 0, passed=True),
        gate_result("unexplained flips", "engine", 0, 0, passed=True),
        gate_result("chain same top-1 (%)", "engine", 99.0, 97.5, passed=False, direction="at least"),
    ),
    engines=(engine("encoder"), engine("classifier")),
    samples=(),
    changed_answers=(),
    calibration=None,
)


def timing(subject: str, candidate: str, p50: float, speedup: float, *, is_target: bool) -> Timing:
    return Timing(
        subject=subject,
        candidate=candidate,
        is_target=is_target,
        backend_version="1.20.0",
        runs=100,
        latency_ms_p50=p50,
        latency_ms_p90=p50 + 1,
        latency_ms_p99=p50 + 2,
        latency_ms_mean=p50,
        images_per_second=1000 / p50,
        peak_memory_mib=123.6,
        speedup=speedup,
        speedup_interval=Interval(speedup - 0.126, speedup + 0.25),
        engines_sha256=("ab" * 32,) * (2 if subject == "chain" else 1),
    )


BENCHMARK = BenchmarkReport(
    schema_version=2,
    created_by="test",
    bundle="bundle",
    contract_id="0123456789abcdef",
    weights_sha256="0" * 64,
    model="ccr-layer1",
    iterations=8,
    trained_iterations=(8,),
    warnings=(),
    target="cpu",
    batch=4,
    threads=2,
    rounds=12,
    machine=MachineState("a CPU", 2, 7.5, "Linux", "3.11.7", 0.25, None),
    timings=(
        timing("encoder", "PyTorch eager", 20.0, 1.0, is_target=False),
        timing("encoder", "cpu", 8.0, 2.5, is_target=True),
        timing("chain", "cpu", 16.0, 2.0, is_target=True),
    ),
    left_out=(),
)

MODEL = ModelDescription(
    name="ccr-layer1",
    image_height=224,
    image_width=192,
    iterations=8,
    trained_iterations=None,
    cut="layer1",
    parameters=14_867_364,
    encoder_parameters=3_704_512,
    encoder_macs_plain=9_500_400_000,
    encoder_macs=7_500_000_000,
    classifier_macs=1_480_600_000,
    code_bytes=784,
    bits_per_pixel=0.125,
    layers=(LayerDescription("encoder.stem", 1728, 21_676_000), LayerDescription("bn1", 128, 0)),
)


def by_title(tables: list[Table], title: str) -> Table:
    (found,) = [table for table in tables if table.title == title]
    return found


def all_tables() -> list[Table]:
    return [
        *verification_tables(VERIFICATION),
        *benchmark_tables(BENCHMARK),
        summary_table(VERIFICATION, BENCHMARK),
        description_table([MODEL]),
        layer_table(MODEL),
    ]


@pytest.mark.parametrize("table", all_tables(), ids=lambda table: table.title)
def test_every_row_has_a_cell_for_every_column(table):
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_table_of_codes_compares_with_pytorch_and_with_the_step_before():
    assert by_title(verification_tables(VERIFICATION), "Codes compared with PyTorch").rows == (
        ("graph", "40 of 40", "0 of 320", "none", "", ""),
        ("engine", "38 of 40", "2 of 320 (0.62 %)", "rounding", "0.0100", "3 of 320 (0.94 %)"),
    )


def test_findings_come_first_if_there_are_any():
    finding = Finding("fp32-graph", "encoder", "bgr", "given BGR images, it returns the codes of RGB")
    first, *others = verification_tables(replace(VERIFICATION, findings=(finding,)))
    assert first.title == "Findings"
    assert first.rows == (("FP32 graph", "encoder", "BGR instead of RGB", finding.evidence),)
    assert others == verification_tables(VERIFICATION)


def test_every_cause_has_a_label():
    assert set(CAUSES) == set(get_args(Cause))


def test_flips_as_far_from_zero_as_all_bits_are_not_rounding():
    far = replace(code("engine", 2, 38), median_flipped_margin=0.5)
    table = by_title(verification_tables(replace(VERIFICATION, codes=(far,))), "Codes compared with PyTorch")
    assert table.rows == (("engine", "38 of 40", "2 of 320 (0.62 %)", "not rounding", "0.5000", ""),)


def test_the_table_of_logits_shows_every_stage_and_way():
    table = by_title(verification_tables(VERIFICATION), "Logits compared with PyTorch")
    assert [row[0] for row in table.rows] == [
        "classifier graph",
        "chain graph",
        "classifier engine",
        "chain engine",
    ]
    assert table.rows[-1][1:] == ("1.3e-06", "1e-07", "0.999999", "", "0.0e+00", "39 of 40", "100.0 %")


def test_the_accuracy_table_shows_every_chain_with_its_interval():
    usual = ("40", "75.0 %", "61.2 – 88.0", "95.0 %", "90.0 – 99.0")
    assert by_title(verification_tables(VERIFICATION), "Accuracy").rows == (
        ("PyTorch", *usual, "", ""),
        ("graph", *usual, "", ""),
        ("engine", "40", "72.5 %", *usual[2:], "2 / 1", "1"),
    )


def test_the_note_of_the_accuracy_table_has_the_number_of_groups():
    assert "8 groups" in by_title(verification_tables(VERIFICATION), "Accuracy").note


def test_without_labels_there_is_no_accuracy_table():
    tables = verification_tables(replace(VERIFICATION, accuracies=()))
    assert [table.title for table in tables] == [
        "Codes compared with PyTorch",
        "Logits compared with PyTorch",
        "Gates",
    ]


def test_the_gates_table_shows_limit_found_and_verdict():
    assert by_title(verification_tables(VERIFICATION), "Gates").rows == (
        ("unexplained flips", "0 ≤ 0", "0 ≤ 0", "pass"),
        ("chain same top-1 (%)", "–", "97.5 ≥ 99 FAIL", "FAIL"),
    )


def test_a_nan_is_shown_as_nan():
    nan = float("nan")
    gates = (gate_result("classifier cosine", "engine", 0.9999, nan, passed=False, direction="at least"),)
    table = by_title(verification_tables(replace(VERIFICATION, gates=gates)), "Gates")
    assert table.rows == (("classifier cosine", "nan ≥ 0.9999 FAIL", "FAIL"),)


def test_the_benchmark_table_shows_a_row_for_every_candidate():
    (table,) = benchmark_tables(BENCHMARK)
    assert table.rows == (
        ("encoder: PyTorch eager", "20.00", "21.00", "22.00", "50.0", "124", "1.00", "0.87 – 1.25"),
        ("encoder: cpu", "8.00", "9.00", "10.00", "125.0", "124", "2.50", "2.37 – 2.75"),
        ("chain: cpu", "16.00", "17.00", "18.00", "62.5", "124", "2.00", "1.87 – 2.25"),
    )


def test_the_benchmark_table_of_a_gpu_shows_both_clocks_and_the_load():
    cool = GpuState(1980, 2619, 300.0, 55)
    loads = [
        GpuLoad(cool, GpuState(1965, 2619, 412.3, 61), 1950, ()),
        GpuLoad(cool, cool, None, ()),
        None,
    ]
    on_gpu = [
        replace(timing, device_latency_ms_p50=time, device_memory_mib=512.0, gpu=load)
        for timing, time, load in zip(BENCHMARK.timings, (1.25, None, 3.5), loads, strict=True)
    ]
    fastest = (FastestPyTorch("chain", "PyTorch FP16 CUDA graph", 1.5, Interval(1.4, 1.6)),)
    report = replace(BENCHMARK, timings=tuple(on_gpu), fastest_pytorch=fastest)
    (table,) = benchmark_tables(report)
    assert table.columns[1:5] == ("p50 ms", "p90 ms", "p99 ms", "GPU p50 ms")
    assert [row[4] for row in table.rows] == ["1.25", "", "3.50"]
    assert "GPU p50: by CUDA events, the others: wall clock" in table.note
    assert table.note.endswith(
        "GPU under load: lowest SM clock 1950 MHz, lowest memory clock 2619 MHz, highest power 412 W, "
        "highest temperature 61 °C; "
        "chain: 1.50 times as fast (1.40 – 1.60) as the fastest PyTorch, PyTorch FP16 CUDA graph"
    )


def test_the_benchmark_table_of_a_cpu_has_nothing_of_a_gpu():
    (table,) = benchmark_tables(BENCHMARK)
    assert "GPU" not in " ".join(table.columns)
    assert "GPU" not in table.note


REASONS = ("other processes used 1.3 of 2 cores while the encoder was timed", "a second reason")
UNRELIABLE = replace(
    BENCHMARK,
    timings=without_speedups(BENCHMARK.timings),
    reliable=False,
    unreliable_reasons=REASONS,
)


def test_an_unreliable_run_has_latencies_and_no_speed_up():
    (table,) = benchmark_tables(UNRELIABLE)
    assert table.title == "Speed, batch 4, 2 threads (unreliable)"
    assert table.rows[1] == ("encoder: cpu", "8.00", "9.00", "10.00", "125.0", "124", "–", "–")
    assert {row[-2:] for row in table.rows} == {("–", "–")}
    assert table.warning == (
        "UNRELIABLE, no speed-ups: other processes used 1.3 of 2 cores while the encoder was timed; "
        "a second reason: measure again on an idle machine"
    )


def test_a_reliable_run_and_one_from_before_runs_were_watched_have_no_warning():
    for report in (BENCHMARK, replace(BENCHMARK, reliable=True)):
        (table,) = benchmark_tables(report)
        assert (table.title, table.warning) == ("Speed, batch 4, 2 threads", "")
        assert summary_table(VERIFICATION, report).warning == ""


def test_the_summary_of_an_unreliable_run_separates_parity_and_speed():
    passed = replace(VERIFICATION, gates=VERIFICATION.gates[:1])
    table = summary_table(passed, UNRELIABLE)
    assert table.rows[0] == ("encoder", "FP32", "38 of 40 payloads equal", "", "8.00", "–", "–")
    assert table.note.endswith("parity: all gates passed")
    assert table.warning.startswith("speed: UNRELIABLE, no speed-ups: other processes used 1.3")


def test_an_unreliable_run_has_no_plot_of_speed_ups():
    assert "<svg" in speedup_plot(BENCHMARK)
    assert speedup_plot(UNRELIABLE) == ""


def test_the_page_starts_with_the_warning_of_an_unreliable_run():
    page = html("report", Results(replace(VERIFICATION, gates=VERIFICATION.gates[:1]), UNRELIABLE))
    top = page[: page.index("<h2>")]
    assert "Parity: all gates passed." in top
    assert "Speed: UNRELIABLE, no speed-ups: other processes used 1.3 of 2 cores" in top
    assert page.count("UNRELIABLE") == 3  # here, in the summary and in the table of speeds
    assert "2.50" not in page
    assert "UNRELIABLE" not in html("report", Results(VERIFICATION, BENCHMARK))
    assert "Speed: UNRELIABLE" in html("report", Results(None, UNRELIABLE))


def test_markdown_has_the_warning_before_the_note():
    text = markdown("report", benchmark_tables(UNRELIABLE))
    assert text.index("**UNRELIABLE, no speed-ups") < text.index("12 interleaved rounds")


def test_the_benchmark_table_names_batch_threads_and_machine():
    (table,) = benchmark_tables(BENCHMARK)
    assert table.title == "Speed, batch 4, 2 threads"
    assert "12 interleaved rounds" in table.note
    assert "on a CPU; " in table.note


def test_the_summary_shows_the_target_s_engines_stage_by_stage():
    assert summary_table(VERIFICATION, BENCHMARK).rows == (
        ("encoder", "FP32", "38 of 40 payloads equal", "", "8.00", "2.50", "2.37 – 2.75"),
        ("classifier", "FP32", "cosine 0.999999", "", "", "", ""),
        ("chain", "", "39 of 40 classes equal", "75.0 % → 72.5 %", "16.00", "2.00", "1.87 – 2.25"),
    )


def test_the_summary_reports_a_failed_gate():
    assert summary_table(VERIFICATION, BENCHMARK).note == ("40 images; target cpu; parity: A GATE FAILED")


def test_the_summary_reports_that_all_gates_passed():
    passed = replace(VERIFICATION, gates=VERIFICATION.gates[:1])
    assert summary_table(passed, BENCHMARK).note.endswith("parity: all gates passed")


def test_without_labels_the_summary_shows_no_accuracy():
    table = summary_table(replace(VERIFICATION, accuracies=()), BENCHMARK)
    assert [row[3] for row in table.rows] == ["", "", ""]


def test_the_table_of_models_shows_sizes_and_work():
    assert description_table([MODEL]).rows == (
        (
            "ccr-layer1",
            "224x192",
            "8",
            "layer1",
            "14,867,364",
            "9.500",
            "7.500",
            "1.481",
            "784",
            "0.125",
        ),
    )


def test_a_baseline_has_no_cut_in_the_table_of_models():
    assert description_table([dataclasses.replace(MODEL, cut=None)]).rows[0][3] == "none"


@pytest.mark.parametrize(
    ("trained", "text"), [((8,), "with T=8; "), ((2, 4, 8), "with T=2, 4, 8; "), ((), "with no T; ")]
)
def test_the_table_of_models_has_the_trained_iterations(trained, text):
    checkpoint = dataclasses.replace(MODEL, name="model.pt", trained_iterations=trained)
    assert description_table([checkpoint]).note.startswith(f"model.pt was trained {text}")
    assert "was trained" not in description_table([MODEL]).note


def test_the_table_of_layers_has_millions_or_a_dash_without_multiplications():
    table = layer_table(MODEL)
    assert table.title == "Layers of ccr-layer1"
    assert table.rows == (("encoder.stem", "1,728", "21.7"), ("bn1", "128", "–"))
