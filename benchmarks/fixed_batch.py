"""Measure whether a fixed batch makes CPU engines faster than a dynamic one.

``python -m benchmarks.fixed_batch`` exports untrained weights of ``ccr-layer1`` at 224x224, T=8, calibrates,
and runs each graph with a dynamic and with a fixed batch, in rounds that run both once. OpenVINO gets the
batch by ``Model.reshape``, ONNX Runtime by ``add_free_dimension_override_by_name``. Times are CPU times of
the process, so that other load on the machine matters little. The result is written to
``benchmarks/results/fixed-batch.json``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.scaffold import (
    MODEL,
    calibrated_bundle,
    cpu_time_ratio,
    machine_words,
    publish,
    random_feeds,
    temporary_folder,
    untrained_model,
)
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeRunner, import_onnxruntime, start_session
from ccr_deploy.backends.onnxruntime.int8 import broken_optimizers, read_rounding_graph
from ccr_deploy.backends.openvino.cpu import OpenVinoRunner, change_before_compilation, import_openvino
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ccr_deploy.backends.runner import Runner
    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.core.stages import ChainStage, Schedule

BATCHES = (1, 8)
ROUNDS = 8
GRAPHS: tuple[tuple[ChainStage, Schedule | None], ...] = (
    ("encoder", "iteration-major"),
    ("encoder", "layer-major"),
    ("classifier", None),
)
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


class FixedBatchCase(Record, frozen=True):
    """The median of the CPU times with a fixed batch, divided by that with a dynamic batch."""

    graph: str
    precision: str
    library: str
    batch: int
    cpu_ratio: float


class FixedBatchBenchmark(Record, frozen=True):
    """All cases on one machine."""

    schema_version: int
    model: str
    rounds: int
    machine: MachineState
    cases: tuple[FixedBatchCase, ...]


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def main(bundle: Path | None) -> None:
    """Measure, with an untrained bundle that is exported first, or with BUNDLE."""
    with temporary_folder() as folder:
        schedules: tuple[Schedule, ...] = ("iteration-major", "layer-major")
        measured = Bundle.open(bundle) if bundle else calibrated_bundle(MODEL, folder, schedules=schedules)
        result = FixedBatchBenchmark(
            schema_version=1,
            model=untrained_model(MODEL, measured),
            rounds=ROUNDS,
            machine=machine_state(),
            cases=tuple(_cases(measured)),
        )
    publish("fixed-batch", result, fixed_batch_table(result))


def fixed_batch_table(result: FixedBatchBenchmark) -> Table:
    """Return the table, one row per graph and batch, one column per library and precision."""
    columns = list(dict.fromkeys((case.library, case.precision) for case in result.cases))
    ratios = {(case.graph, case.batch, case.library, case.precision): case.cpu_ratio for case in result.cases}
    return Table(
        title="CPU time with a fixed batch, divided by that with a dynamic batch",
        columns=("graph", "batch", *(f"{library}, {precision.upper()}" for library, precision in columns)),
        rows=tuple(
            (graph, str(batch), *(f"{ratios[(graph, batch, *column)]:.2f}" for column in columns))
            for graph, batch in dict.fromkeys((case.graph, case.batch) for case in result.cases)
        ),
        note=f"{result.model}; medians of {result.rounds} rounds, on {machine_words(result.machine)}",
    )


def _cases(bundle: Bundle) -> Iterator[FixedBatchCase]:
    for stage, schedule in GRAPHS:
        for precision in PRECISIONS:
            graph = bundle.file(bundle.graph(stage, precision, schedule).file)
            for library, load in _LIBRARIES.items():
                for batch in BATCHES:
                    yield FixedBatchCase(
                        graph=f"{stage}, {schedule}" if schedule else stage,
                        precision=precision,
                        library=library,
                        batch=batch,
                        cpu_ratio=_ratio(partial(load, graph, precision), bundle, stage, batch),
                    )


def _ratio(load: Callable[[int | None], Runner], bundle: Bundle, stage: ChainStage, batch: int) -> float:
    feeds = random_feeds(bundle, stage, batch)
    with load(batch) as fixed, load(None) as dynamic:
        for runner in (fixed, dynamic):
            runner.infer(feeds)  # the first run of a shape prepares it
        return cpu_time_ratio(f"timing {stage}, batch {batch}", fixed, dynamic, feeds, ROUNDS)


def _onnxruntime(graph: Path, precision: Precision, batch: int | None) -> Runner:
    library = import_onnxruntime("onnx")
    options = library.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if batch:
        options.add_free_dimension_override_by_name("batch", batch)
    content: Path | bytes = graph
    if precision == "int8":
        content = read_rounding_graph(graph, library.__version__)
        broken = ";".join(broken_optimizers(library.__version__))
        options.add_session_config_entry("optimization.disable_specified_optimizers", broken)
    return OnnxRuntimeRunner(start_session(library, content, options, ["CPUExecutionProvider"]))


def _openvino(graph: Path, precision: Precision, batch: int | None) -> Runner:
    core = import_openvino().Core()
    model = core.read_model(graph)
    change_before_compilation(model, precision)
    if batch:
        model.reshape([batch, *list(model.inputs[0].partial_shape)[1:]])
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    return OpenVinoRunner(core.compile_model(model, "CPU", config))


_LIBRARIES = {"ONNX Runtime": _onnxruntime, "OpenVINO": _openvino}


if __name__ == "__main__":
    main()
