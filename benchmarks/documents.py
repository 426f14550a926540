"""Fill the tables of the README and the site from committed results and from the gates' rows.

``python -m benchmarks.documents`` writes each table between its markers (``<!-- name -->``). With
``--demo DIR`` it first copies what ``make demo`` measured (``build/demo/report``) to ``benchmarks/results``.
A test compares the documents with the results.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from msgspec import structs

from benchmarks.containers import ContainerBenchmark, image_table, start_table
from benchmarks.drawings import standalone
from benchmarks.fixed_batch import FixedBatchBenchmark, fixed_batch_table
from benchmarks.graph_ideas import GraphIdeas, ideas_table
from benchmarks.int8 import Int8Benchmark, int8_table
from benchmarks.int8_graph_results import Int8Graphs, bits_table, placements_table, weights_table
from benchmarks.int8_saturation import SaturationBenchmark, saturation_table
from benchmarks.payload import PayloadBenchmark, payload_table
from benchmarks.peers.documents import peers_pages, peers_plots
from benchmarks.planted_faults import PlantedFaults, faults_table
from benchmarks.precision_choices import PrecisionChoices, choices_table
from benchmarks.recovery_results import Recovery, recovery_table
from benchmarks.scaffold import from_json, read_result, result_path, to_json
from benchmarks.scaling_results import ScalingBenchmark
from benchmarks.scaling_tables import growth_table, scaling_plots, scaling_table, steps_table
from benchmarks.scenarios import ScenarioBenchmark, scenarios_table, soak_table
from benchmarks.serving_results import (
    ServingBenchmark,
    serving_floor_table,
    serving_latency_table,
    serving_table,
)
from benchmarks.table1 import paper_table
from benchmarks.tensorrt_builds import TensorRtBuilds, builds_table, int8_cost_table, kernels_table
from benchmarks.training_documents import training_tables
from benchmarks.training_processes import TrainingProcesses, losses_plot, processes_table
from benchmarks.triton import TritonBenchmark, triton_latency_table, triton_table
from benchmarks.verification import VerificationBenchmark, verification_table
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.benchmarking.table1_results import Table1
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.reporting.evidence import joined_table, why_not_joined
from ccr_deploy.reporting.markdown import markdown_table
from ccr_deploy.reporting.precision_tables import accuracy_table
from ccr_deploy.reporting.table1_tables import counts_table, parts_table, times_table
from ccr_deploy.reporting.tables import benchmark_tables
from ccr_deploy.reporting.verification_tables import gate_table
from ccr_deploy.verification.gates import GATES
from ccr_deploy.verification.results import ChangedAnswer, SampleAnswer, VerificationReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.reporting.table import Table

_Image = TypeVar("_Image", SampleAnswer, ChangedAnswer)

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def tables() -> dict[str, str]:
    """Return every quoted table as Markdown, by its marker's name."""
    verification = read_result("demo-verify", VerificationReport)
    benchmark = read_result("demo-benchmark", BenchmarkReport)
    speed = read_result("cpu-ccr-layer1", BenchmarkReport)
    containers = read_result("containers-ccr-layer1", ContainerBenchmark)
    builds = read_result("tensorrt-rtx-builds", TensorRtBuilds)
    int8_graphs = read_result("int8-graphs", Int8Graphs)
    scaling = read_result("scaling", ScalingBenchmark)
    serving = read_result("serving-ccr-layer1", ServingBenchmark)
    scenarios = read_result("scenarios-ccr-layer1", ScenarioBenchmark)
    triton = read_result("triton-ccr-layer1", TritonBenchmark)
    table1 = read_result("table1", Table1)
    assert verification.calibration is not None
    chosen: dict[str, Table] = {
        "gates": gate_table(GATES),
        "demo": demo_table(verification, benchmark),
        "precision": accuracy_table(verification.calibration),
        "choices": choices_table(read_result("precision-choices", PrecisionChoices)),
        "recovery": recovery_table(read_result("recovery", Recovery)),
        "int8": int8_table(read_result("int8-ccr-layer1", Int8Benchmark)),
        "int8-weights": weights_table(int8_graphs),
        "int8-placements": placements_table(int8_graphs),
        "int8-bits": bits_table(int8_graphs),
        "fixed-batch": fixed_batch_table(read_result("fixed-batch", FixedBatchBenchmark)),
        "saturation": saturation_table(read_result("int8-saturation-ccr-layer1", SaturationBenchmark)),
        "container-image": image_table(containers),
        "container-starts": start_table(containers),
        "speed": benchmark_tables(speed)[0],
        "verification": verification_table(read_result("verification-ccr-layer1", VerificationBenchmark)),
        "payload": payload_table(read_result("payload", PayloadBenchmark)),
        "rtx": builds_table(builds),
        "graph-ideas": ideas_table(read_result("graph-ideas", GraphIdeas)),
        "rtx-kernels": kernels_table(builds),
        "rtx-int8-cost": int8_cost_table(builds),
        "faults": faults_table(read_result("planted-faults", PlantedFaults)),
        "scaling": scaling_table(scaling),
        "growth": growth_table(scaling),
        "export-steps": steps_table(scaling),
        "serving": serving_table(serving),
        "serving-latency": serving_latency_table(serving),
        "serving-floor": serving_floor_table(serving),
        "paper": paper_table(),
        "scenarios": scenarios_table(scenarios),
        "soak": soak_table(scenarios),
        "triton": triton_table(triton),
        "triton-latency": triton_latency_table(triton),
        "training-processes": processes_table(read_result("training-processes", TrainingProcesses)),
        "table1": times_table(table1),
        "table1-parts": parts_table(table1),
        "table1-counts": counts_table(table1),
    }
    chosen |= training_tables()
    return {name: markdown_table(table) for name, table in chosen.items()} | peers_pages()


def drawings() -> dict[Path, str]:
    """Return the content of every drawn plot of the site, by its file."""
    plots = scaling_plots(read_result("scaling", ScalingBenchmark)) | peers_plots()
    plots["training-processes"] = losses_plot(read_result("training-processes", TrainingProcesses))
    return {IMAGES / f"{name}.svg": standalone(plot) for name, plot in plots.items()}


def demo_table(verification: VerificationReport, benchmark: BenchmarkReport) -> Table:
    """Return the summary table of `make demo`, with the machine that it was measured on."""
    summary = joined_table(verification, benchmark)
    measured_on = f"measured on {benchmark.threads} cores of {benchmark.machine.processor}"
    return replace(summary, note=f"{summary.note}; {measured_on}, batch {benchmark.batch}")


def filled(text: str, current: Mapping[str, str]) -> str:
    """Return a document with the current tables between its markers."""
    for name, table in current.items():
        if f"<!-- {name} -->" in text:
            before, begin, rest = text.partition(f"<!-- {name} -->")
            _, end, after = rest.partition(f"<!-- /{name} -->")
            text = f"{before}{begin}\n\n{table}\n{end}{after}"
    return text


@click.command()
@click.option(
    "--demo",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Report folder of the demo, to copy its results first.",
)
def main(demo: Path | None) -> None:
    """Write the tables into the documents."""
    if demo:
        verification = from_json((demo / "verify.json").read_bytes(), VerificationReport)
        benchmark = from_json((demo / "benchmark.json").read_bytes(), BenchmarkReport)
        if verification.weights_sha256 != benchmark.weights_sha256:
            raise click.ClickException(f"{demo}: verify.json and benchmark.json are of different trainings")
        if refusal := why_not_joined(verification, benchmark):
            raise click.ClickException(f"{demo}: {refusal}")
        # Without the images themselves: the photos are not part of this project.
        verification = structs.replace(
            verification,
            samples=_without_thumbnails(verification.samples),
            changed_answers=_without_thumbnails(verification.changed_answers),
        )
        write_atomically(result_path("demo-verify"), to_json(verification))
        write_atomically(result_path("demo-benchmark"), to_json(benchmark))
    for image, drawing in drawings().items():
        write_atomically(image, drawing.encode())
    current = tables()
    for document in DOCUMENTS:
        write_atomically(document, filled(document.read_text(encoding="utf-8"), current).encode())


def _without_thumbnails(images: tuple[_Image, ...]) -> tuple[_Image, ...]:
    return tuple(structs.replace(image, thumbnail_png_base64="") for image in images)


if __name__ == "__main__":
    main()
