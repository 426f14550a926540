"""Sections and plots of the HTML report on results of `benchmark`, from planted records."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ccr_deploy.bundle.accuracy import PrecisionAccuracy
from ccr_deploy.bundle.manifest import CalibrationRecord, FileRecord
from ccr_deploy.core.metrics import Interval
from ccr_deploy.reporting.all_tables import all_tables
from ccr_deploy.reporting.html import html
from ccr_deploy.reporting.latency_plots import LatencyRow, latency_plot
from ccr_deploy.reporting.pareto import pareto
from ccr_deploy.reporting.results import Results
from ccr_deploy.reporting.run_plots import soak_plot, table1_plot
from ccr_deploy.reporting.tradeoff_plots import pareto_plot, roofline_plot
from ccr_deploy.verification.results import AccuracyChange, EngineSummary
from tests.support.benchmark_modes import (
    end_to_end,
    gpu_state,
    roofline,
    scenario_result,
    soak_interval,
    soak_result,
    table1,
)
from tests.support.benchmark_runs import EAGER, ENGINE, benchmark_report, planted_samples, timing
from tests.support.results import chain_accuracy, code_parity, gate_result, logit_parity, verification_report

if TYPE_CHECKING:
    from ccr_deploy.benchmarking.results import BenchmarkReport, Timing

HASHES = ("ab" * 32, "cd" * 32)
LARGE = 15_000_000, 11_000_000


def chain(candidate: str, precision: str, median: float, sizes: tuple[int, int], **values: object) -> Timing:
    samples = planted_samples(len(candidate), {candidate: median})[candidate]
    usual = {"precisions": (precision, precision), "engine_bytes": sizes, "engines_sha256": (candidate,) * 2}
    return timing(candidate, samples, **{**usual, **values})


CHAINS = (
    chain(EAGER, "fp32", 150.0, LARGE),
    chain(ENGINE, "int8", 48.0, (4_000_000, 3_000_000), engines_sha256=HASHES),
    chain("openvino fp32", "fp32", 104.0, LARGE),
    chain("openvino bf16", "bf16", 70.0, LARGE),
    chain("conventional, PyTorch eager", "fp32", 900.0, LARGE, precisions=("fp32",)),
)


def accuracy(precision: str, loss: float | None, same: int) -> PrecisionAccuracy:
    interval = None if loss is None else Interval(loss - 1, loss + 1)
    return PrecisionAccuracy(
        precision=precision,
        images=200,
        groups=20,
        bits=200_000,
        flipped_bits=100,
        equal_payloads=100,
        same_top1=same,
        top1_percent=None if loss is None else 75 - loss,
        top1_interval_percent=interval,
        top1_loss_points=loss,
        top1_loss_interval_points=interval,
    )


CALIBRATION = CalibrationRecord(
    table=FileRecord("calibration.json", "0" * 64, 1),
    high_precision=(),
    images="200 images",
    accuracies=(accuracy("fp32", 0.0, 200), accuracy("bf16", 0.5, 196), accuracy("int8", 2.5, 190)),
)


def engine(stage: str, sha256: str) -> EngineSummary:
    return EngineSummary(stage, "int8", None, "openvino", "1.0", "a CPU", sha256)


VERIFICATION = verification_report(
    codes=(code_parity(),),
    logits=(logit_parity("classifier"), logit_parity("chain", images=200, same_top1=192)),
    accuracies=(chain_accuracy("pytorch", 75.0), chain_accuracy("engine", 73.0)),
    accuracy_changes=(AccuracyChange("engine", 200, 6, 2, 0.3, 2.0, Interval(-0.5, 4.5)),),
    gates=(gate_result("flipped bits (%)", "engine", 2, 0.4, passed=True),),
    engines=(engine("encoder", HASHES[0]), engine("classifier", HASHES[1])),
    calibration=CALIBRATION,
)


def subject_timings(subject: str, factor: float, sha256: str) -> tuple[Timing, ...]:
    names = {EAGER: 120 * factor, ENGINE: 38 * factor, "openvino fp32 iteration-major": 96 * factor}
    samples = planted_samples(3, names)
    return tuple(timing(name, samples[name], subject=subject, engines_sha256=(sha256,)) for name in names)


BENCHMARK = benchmark_report(
    (*subject_timings("encoder", 1, HASHES[0]), *subject_timings("classifier", 0.2, HASHES[1]), *CHAINS),
    roofline=roofline(),
    end_to_end=end_to_end(),
)
EVERYTHING = Results(
    VERIFICATION,
    BENCHMARK,
    (scenario_result(), scenario_result("server", 80.0), scenario_result("paced", 70.0)),
    soak_result(),
    table1(),
)


def page(results: Results = EVERYTHING) -> str:
    return html("report", results)


def benchmark_page(benchmark: BenchmarkReport) -> str:
    return page(Results(benchmark=benchmark))


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def plots(text: str, description: str) -> list[str]:
    return re.findall(rf'<svg role="img" aria-label="{description}[^"]*".*?</svg>', text, re.DOTALL)


def test_the_order_of_sections() -> None:
    found = headings(page())
    listed = [
        "Gates",
        "Engines compared with PyTorch eager",
        "Accuracy against latency and size",
        "Speed, batch 1, 2 threads",
        "Latency distributions",
        "Roofline: the times that this machine&#39;s limits allow",
        "Scenarios",
        "The paper&#39;s Table 1 on this machine, one image per call",
    ]
    assert [title for title in found if title in listed] == listed
    assert any(title.startswith("From file to label") for title in found)


def test_every_table_of_the_page_is_in_markdown_too() -> None:
    assert len(re.findall("<table", page())) == len(all_tables(EVERYTHING))


def test_the_distributions_have_a_plot_for_each_subject_and_a_row_for_each_candidate() -> None:
    found = plots(page(), "Latency distributions: ")
    assert [re.findall(r'distributions: (\w+)"', one)[0] for one in found] == [
        "encoder",
        "classifier",
        "chain",
        "scenarios",
    ]
    for name in (EAGER, ENGINE, "openvino fp32", "conventional, PyTorch eager"):
        assert name in found[2]
    p50, p90, p99 = CHAINS[1].latency_ms_p50, CHAINS[1].latency_ms_p90, CHAINS[1].latency_ms_p99
    assert f"{p50:.1f} / {p90:.1f} / {p99:.1f}" in found[2]


def test_a_wide_range_of_latencies_gives_a_logarithmic_axis() -> None:
    def drawn(slow: float) -> str:
        rows = [
            LatencyRow("a", False, (1.0, 1.1), (1.0, 1.1, 1.1)),
            LatencyRow("b", True, (slow,), (slow,) * 3),
        ]
        return latency_plot("chain", rows)

    assert "logarithmic" in drawn(10)
    assert "logarithmic" not in drawn(2)


def test_one_candidate_with_one_sample_is_drawn() -> None:
    one = timing(ENGINE, planted_samples(0)[ENGINE][:1, :1])
    assert plots(benchmark_page(benchmark_report((one,))), "Latency distributions: chain")


def test_equal_samples_are_drawn() -> None:
    assert "<svg" in latency_plot("chain", [LatencyRow("a", True, (2.0, 2.0), (2.0, 2.0, 2.0))])


def test_an_unreliable_run_has_distributions_but_no_speed_ups() -> None:
    unreliable = benchmark_report(
        tuple(replace(own, speedup=None, speedup_interval=None) for own in CHAINS),
        unreliable_reasons=("busy",),
        reliable=False,
    )
    text = benchmark_page(unreliable)
    assert plots(text, "Latency distributions: chain")
    assert not plots(text, "Speed-up of each candidate")
    assert "UNRELIABLE" in text


def test_without_raw_samples_there_are_no_distributions() -> None:
    bare = benchmark_report(tuple(replace(own, samples_ms=()) for own in CHAINS))
    assert "Latency distributions" not in headings(benchmark_page(bare))


def test_a_verified_engine_has_its_measured_accuracy_and_the_others_a_predicted_one() -> None:
    found = pareto(VERIFICATION, BENCHMARK)
    assert found
    assert [(point.name, point.accuracy, point.source) for point in found.points] == [
        (EAGER, 0.0, "reference"),
        ("INT8", -2.0, "measured"),
        ("FP32", 0.0, "predicted"),
        ("BF16", -0.5, "predicted"),
    ]
    assert found.points[1].interval == Interval(-4.5, 0.5)
    assert found.points[1].megabytes == 7.0
    assert [point.name for point in found.latency_front] == ["INT8", "BF16", "FP32"]
    assert [point.name for point in found.size_front] == ["INT8", EAGER, "FP32"]


def test_an_engine_with_another_hash_is_not_joined_with_the_measured_accuracy() -> None:
    swapped = replace(VERIFICATION, engines=(engine("encoder", "ee" * 32), VERIFICATION.engines[1]))
    found = pareto(swapped, BENCHMARK)
    assert found
    assert found.points[1].source == "predicted"
    assert found.points[1].accuracy == -2.5


def test_without_labels_the_accuracy_is_the_share_of_pytorch_s_classes() -> None:
    unlabelled = replace(VERIFICATION, accuracies=(), accuracy_changes=())
    found = pareto(unlabelled, BENCHMARK)
    assert found
    assert found.quantity == "images with PyTorch's class, %"
    assert [point.accuracy for point in found.points] == [100.0, 96.0, 100.0, 98.0]


def test_without_a_calibration_only_the_verified_engine_is_beside_pytorch() -> None:
    found = pareto(replace(VERIFICATION, calibration=None), BENCHMARK)
    assert found
    assert [point.name for point in found.points] == [EAGER, "INT8"]
    assert pareto(replace(VERIFICATION, calibration=None, engines=()), BENCHMARK) is None


def test_the_front_is_drawn_against_latency_and_size() -> None:
    (latency,) = plots(page(), "Accuracy against latency")
    (size,) = plots(page(), "Accuracy against size")
    for drawn, axis in ((latency, "p50 of the chain, ms"), (size, "engine files, MB")):
        assert axis in drawn
        assert all(name in drawn for name in ("INT8", "BF16", "FP32", EAGER))
    bare = replace(BENCHMARK, timings=tuple(replace(own, engine_bytes=()) for own in CHAINS))
    found = pareto(VERIFICATION, bare)
    assert found
    assert pareto_plot(found, "size") == ""


def test_the_roofline_names_rates_and_bandwidth() -> None:
    (drawn,) = plots(page(), "Roofline")
    for text in ("FP32 90", "INT8 330", "14 GB/s", "encoder", "classifier", "chain"):
        assert text in drawn
    assert roofline_plot(roofline(engines=())) == ""
    assert roofline_plot(roofline(matrix_rates=())) == ""
    assert roofline_plot(roofline(engines=roofline().engines[:1]))


def test_the_steps_from_file_to_label_are_drawn() -> None:
    (drawn,) = plots(page(), "Median time of each step")
    assert all(step in drawn for step in ("decode", "payload read", "classifier", "sum", "chain", "38.0"))


def test_scenarios_have_a_row_each_and_the_bound() -> None:
    drawn = plots(page(), "Latency distributions: scenarios")[0]
    assert all(name in drawn for name in ("single-stream: chain", "server: chain", "paced: chain"))
    empty = page(Results(scenarios=(scenario_result(samples_ms=()),)))
    assert not plots(empty, "Latency distributions")


def test_a_soak_has_a_panel_for_each_sensor_that_was_read() -> None:
    drawn = soak_plot(soak_result())
    assert all(name in drawn for name in ("p50", "p99", "CPU MHz", "CPU °C", "minutes"))
    assert "GPU" not in drawn
    assert "CPU W" not in drawn
    on_gpu = soak_result(intervals=2)
    intervals = tuple(soak_interval(number, gpu=gpu_state()) for number in range(2))
    assert "GPU °C" in soak_plot(replace(on_gpu, intervals=intervals))
    assert soak_plot(soak_result(intervals=1)) == ""


def test_table_1_shows_the_paper_s_reductions_beside_the_measured_ones() -> None:
    drawn = table1_plot(table1())
    assert all(name in drawn for name in ("the paper", "PyTorch eager FP32", "openvino FP16", "ccr-layer3"))
    unreliable = table1(times=tuple(replace(time, reduction_percent=None) for time in table1().times))
    assert table1_plot(unreliable) == ""


@pytest.mark.parametrize("results", [EVERYTHING, Results(soak=soak_result()), Results(table1=table1())])
def test_plots_follow_the_page_and_need_no_other_document(results: Results) -> None:
    text = page(results)
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)", text)
    for one in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.search(r"(fill|stroke): #", one)
        assert "font-family" not in one
