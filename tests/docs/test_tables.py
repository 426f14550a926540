"""The documents' tables are the committed results, the gates' rows and the records' fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.documents import DOCUMENTS, drawings, filled, tables
from ccr_deploy.backends.kernels import ConvolutionGroup, KernelGroup, KernelListing, Totals
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.onnxruntime.cuda import CudaOptions
from ccr_deploy.backends.openvino.cpu import OpenVinoOptions
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.backends.roofline import GPUS, GpuLimits
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.benchmarking.comparison_results import (
    BenchmarkComparison,
    CandidateChange,
    Control,
    Difference,
    Ratio,
)
from ccr_deploy.benchmarking.results import (
    AnswerCheck,
    BenchmarkReport,
    Contention,
    CpuLoad,
    Environment,
    FastestPyTorch,
    GpuLoad,
    GpuState,
    MachineState,
    Timing,
    WarmUp,
)
from ccr_deploy.benchmarking.roofline_results import EngineRoofline, MatrixRate, MemoryBandwidth, Roofline
from ccr_deploy.benchmarking.scenario_results import (
    Compared,
    Drift,
    EarlyStopping,
    Latencies,
    LoadGenSummary,
    PacedComparison,
    ScenarioResult,
    ScenarioSettings,
    SoakInterval,
    SoakResult,
)
from ccr_deploy.benchmarking.stage_results import EndToEnd, Energy, ImageBytes, StartUp, StepTime
from ccr_deploy.benchmarking.table1_results import PaperRow, Table1, Table1Model, Table1Time
from ccr_deploy.bundle.manifest import Manifest
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.engines.kernels import EngineKernels, ProfileKernels
from ccr_deploy.engines.sidecar import Verification
from ccr_deploy.export.to_onnx import OPSET
from ccr_deploy.models.key_map import KeyMap, key_map_files
from ccr_deploy.quantization.clipping import ClippingReport, TensorClipping
from ccr_deploy.targets.schema import target_files
from ccr_deploy.verification.gates import GATES
from ccr_deploy.verification.layers import (
    FirstNonFinite,
    IterationFlips,
    LayerComparison,
    LayerReport,
    OutputCheck,
    ReducedGraph,
    TensorDifference,
)
from ccr_deploy.verification.rebuilds import Build, RebuildReport
from ccr_deploy.verification.results import (
    AccuracyChange,
    ChainAccuracy,
    ChangedAnswer,
    CodeParity,
    EngineSummary,
    Finding,
    GateResult,
    GoldenAnswer,
    GoldenAnswers,
    LogitParity,
    MarginCount,
    MatrixCell,
    NonFinite,
    SampleAnswer,
    VerificationReport,
)
from tests.docs.fences import ROOT
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from ccr_deploy.core.records import Record

RECORDS = (
    VerificationReport,
    CodeParity,
    MarginCount,
    MatrixCell,
    LogitParity,
    ChainAccuracy,
    AccuracyChange,
    NonFinite,
    GateResult,
    Finding,
    EngineSummary,
    SampleAnswer,
    ChangedAnswer,
    GoldenAnswers,
    GoldenAnswer,
    RebuildReport,
    Build,
    Verification,
    EngineKernels,
    ProfileKernels,
    Totals,
    KernelListing,
    KernelGroup,
    ConvolutionGroup,
    GpuLimits,
    ClippingReport,
    TensorClipping,
    LayerReport,
    LayerComparison,
    TensorDifference,
    IterationFlips,
    OutputCheck,
    FirstNonFinite,
    ReducedGraph,
    BenchmarkReport,
    BenchmarkComparison,
    CandidateChange,
    Control,
    Ratio,
    Difference,
    FastestPyTorch,
    Timing,
    Roofline,
    MatrixRate,
    MemoryBandwidth,
    EngineRoofline,
    GpuLoad,
    GpuState,
    MachineState,
    Contention,
    EndToEnd,
    StepTime,
    ImageBytes,
    StartUp,
    Energy,
    Table1,
    Table1Model,
    PaperRow,
    Table1Time,
    ScenarioResult,
    ScenarioSettings,
    Latencies,
    EarlyStopping,
    LoadGenSummary,
    Compared,
    PacedComparison,
    SoakResult,
    SoakInterval,
    Drift,
    AnswerCheck,
    CpuLoad,
    Environment,
    WarmUp,
)
TIMED = {
    "demo",
    "int8",
    "saturation",
    "container-starts",
    "speed",
    "payload",
    "verification",
    "rtx",
    "scenarios",
    "serving",
    "scaling",
    "growth",
    "export-steps",
    "soak",
    "table1",
    "triton",
}


@pytest.fixture(scope="module")
def current() -> dict[str, str]:
    """The tables of the committed results."""
    return tables()


def test_tables_are_the_committed_results(current: dict[str, str]) -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert [filled(text, current) for text in texts] == texts
    assert all(any(table in text for text in texts) for table in current.values())


def test_plots_are_those_of_the_committed_results() -> None:
    found = drawings()
    assert {file: file.read_text(encoding="utf-8") for file in found} == found


def test_tables_of_times_name_the_processor(current: dict[str, str]) -> None:
    for name in TIMED:
        assert re.search(r"AMD EPYC|Intel\(R\) Xeon", current[name]), name


def documented_fields(page: str, heading: str) -> list[str]:
    """Return the fields of the table below a heading of a reference page, in order."""
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    section = text.partition(f"# {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    return [name.strip("`") for row in rows for name in row.split(", ")]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_fields_of_the_reports_are_documented(record: type[Record]) -> None:
    assert documented_fields("reports.md", record.__name__) == list(record.__struct_fields__)


def test_fields_of_the_manifest_are_documented() -> None:
    assert documented_fields("bundle.md", "manifest.json") == list(Manifest.__struct_fields__)


def test_fields_and_names_of_key_maps_are_documented() -> None:
    assert documented_fields("key-maps.md", "Fields") == list(KeyMap.__struct_fields__)
    assert documented_fields("key-maps.md", "Shipped key maps") == sorted(key_map_files())


def test_options_of_the_targets_are_documented() -> None:
    options = set(TensorRtOptions.__struct_fields__) | set(RtxOptions.__struct_fields__)
    assert set(documented_fields("tensorrt.md", "Options")) == options
    others = {
        f"options.{name}"
        for kind in (OnnxRuntimeOptions, OpenVinoOptions, CudaOptions, PyTorchOptions)
        for name in kind.__struct_fields__
    }
    assert others <= set(documented_fields("targets.md", "Fields"))


def test_gpus_of_the_floor_are_documented() -> None:
    page = (ROOT / "docs" / "how-to" / "inspect-kernels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`: [^|]* \| ([\d.| ]+) \|", page, flags=re.MULTILINE)
    stated = {name: [float(cell) for cell in cells.split("|")] for name, cells in rows}
    assert stated == {
        name: [gpu.gigabytes_per_second, gpu.fp32, gpu.tf32, gpu.fp16, gpu.int8] for name, gpu in GPUS.items()
    }
    assert ", ".join(GPUS).replace(", rtx", " or rtx") in " ".join(run("inspect", "--help").stdout.split())


def test_shipped_targets_are_documented() -> None:
    text = (ROOT / "docs" / "reference" / "targets.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| (?:ONNX|Open|Tensor|PyTorch)", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(target_files())


def test_environment_variables_of_the_package_are_documented() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "ccr_deploy").rglob("*.py"), ROOT / "deploy" / "container" / "start.sh"]
    found = {
        name
        for path in sources
        for name in re.findall(r"(?<!_)CCR_DEPLOY_[A-Z]+(?:_[A-Z]+)*", path.read_text("utf-8"))
    }
    assert found == set(re.findall(r"^\| `(CCR_DEPLOY_\w+)`", page, flags=re.MULTILINE))


def test_page_and_list_state_the_gates_as_they_are() -> None:
    page = (ROOT / "docs" / "reference" / "gates.md").read_text(encoding="utf-8")
    shown = run("verify", "--gate", "list").stdout
    for gate in GATES:
        expected = [gate.limit_text(precision) for precision in PRECISIONS]
        (stated,) = re.findall(rf"^\| {gate.name} \| (.*) \| {gate.help} \|$", page, flags=re.MULTILINE)
        assert stated.split(" | ") == expected
        (helped,) = re.findall(rf"^ +{gate.name} +(.*?) +{gate.help} *$", shown, flags=re.MULTILINE)
        assert re.split(r" {2,}", helped) == expected


def test_pages_agree_on_opsets() -> None:
    text = " ".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert set(re.findall(r"operators up to opset (\d+)", text)) == {"17"}
    assert set(re.findall(r"graphs (?:here )?are opset (\d+)", text)) == {str(OPSET)}
