"""The tables that the README and the docs quote, from committed results and the gates' rows.

``python -m benchmarks.readme`` puts them between the documents' markers; ``--demo DIR`` first takes over
what ``make demo`` measured (``build/demo/report``). A test holds the documents against the results.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import pydantic

from benchmarks.containers import RESULT as CONTAINERS_RESULT
from benchmarks.containers import ContainerBenchmark, image_table, start_table
from benchmarks.int8 import Int8Benchmark, int8_table
from benchmarks.int8_saturation import RESULT as SATURATION_RESULT
from benchmarks.int8_saturation import SaturationBenchmark, saturation_table
from benchmarks.payload import PayloadBenchmark, payload_table
from benchmarks.precision_choices import PrecisionChoices, choices_table
from benchmarks.serving import ServingBenchmark, serving_table
from benchmarks.tensorrt_builds import TensorRtBuilds, builds_table
from benchmarks.triton import TritonBenchmark, triton_table
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.reporting.markdown import markdown_table
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.tables import benchmark_tables, gate_table, summary_table
from ccr_deploy.verification.gates import GATES
from ccr_deploy.verification.results import VerificationReport
from ccr_deploy.workflow.report_folder import to_json

if TYPE_CHECKING:
    from ccr_deploy.reporting.table import Table

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "containers.md",
    ROOT / "docs" / "payload.md",
    ROOT / "docs" / "serving.md",
    ROOT / "docs" / "tensorrt.md",
    ROOT / "docs" / "triton.md",
)

_Report = TypeVar(
    "_Report",
    VerificationReport,
    BenchmarkReport,
    PrecisionChoices,
    ContainerBenchmark,
    Int8Benchmark,
    SaturationBenchmark,
    PayloadBenchmark,
    ServingBenchmark,
    TensorRtBuilds,
    TritonBenchmark,
)


def tables() -> dict[str, str]:
    """Every quoted table as Markdown, by its marker's name."""
    verification = _read(RESULTS / "demo-verify.json", VerificationReport)
    benchmark = _read(RESULTS / "demo-benchmark.json", BenchmarkReport)
    speed = _read(RESULTS / "cpu-ccr-layer1.json", BenchmarkReport)
    containers = _read(CONTAINERS_RESULT, ContainerBenchmark)
    assert verification.calibration is not None
    chosen: dict[str, Table] = {
        "gates": gate_table(GATES),
        "demo": summary_table(verification, benchmark),
        "precision": accuracy_table(verification.calibration),
        "choices": choices_table(_read(RESULTS / "precision-choices.json", PrecisionChoices)),
        "int8": int8_table(_read(RESULTS / "int8-ccr-layer1.json", Int8Benchmark)),
        "saturation": saturation_table(_read(SATURATION_RESULT, SaturationBenchmark)),
        "container-image": image_table(containers),
        "container-starts": start_table(containers),
        "speed": benchmark_tables(speed)[0],
        "payload": payload_table(_read(RESULTS / "payload.json", PayloadBenchmark)),
        "rtx": builds_table(_read(RESULTS / "tensorrt-rtx-builds.json", TensorRtBuilds)),
        "serving": serving_table(_read(RESULTS / "serving-ccr-layer1.json", ServingBenchmark)),
        "triton": triton_table(_read(RESULTS / "triton-ccr-layer1.json", TritonBenchmark)),
    }
    return {name: markdown_table(table) for name, table in chosen.items()}


def filled(text: str) -> str:
    """A document's text with every table that it has markers for put between them."""
    for name, table in tables().items():
        if f"<!-- {name} -->" in text:
            before, begin, rest = text.partition(f"<!-- {name} -->")
            _, end, after = rest.partition(f"<!-- /{name} -->")
            text = f"{before}{begin}\n\n{table}\n{end}{after}"
    return text


@click.command()
@click.option("--demo", type=click.Path(path_type=Path), metavar="DIR", help="The demo's report folder.")
def main(demo: Path | None) -> None:
    """Write the tables into the documents."""
    if demo:
        verification = _read(demo / "verify.json", VerificationReport)
        # Without the sample pictures, which are not this project's.
        samples = tuple(replace(sample, thumbnail_png_base64="") for sample in verification.samples)
        verification = replace(verification, samples=samples)
        write_atomically(RESULTS / "demo-verify.json", to_json(verification).encode())
        benchmark = _read(demo / "benchmark.json", BenchmarkReport)
        write_atomically(RESULTS / "demo-benchmark.json", to_json(benchmark).encode())
    for document in DOCUMENTS:
        write_atomically(document, filled(document.read_text(encoding="utf-8")).encode())


def _read(path: Path, kind: type[_Report]) -> _Report:
    return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())


if __name__ == "__main__":
    main()
