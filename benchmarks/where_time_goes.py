"""Find where the time of the FP32 encoder goes, by the profilers of ONNX Runtime and OpenVINO.

``python -m benchmarks.where_time_goes`` exports untrained weights of ``ccr-layer1`` at 224x224, T=8, profiles
the encoder at batch 1 as the targets run it, and measures the rate of a large matrix product with the same
threads. The rate gives the floor: the time of the encoder's multiply-accumulates alone. It takes a
minute, and writes ``benchmarks/results/where-time-goes-MACHINE.json``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import onnx_ir as ir

from benchmarks.peers.results import machine_slug, measured_on
from benchmarks.scaffold import (
    preset_option,
    publish,
    random_feeds,
    temporary_folder,
    untrained_bundle,
    untrained_model,
)
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE
from ccr_deploy.backends.onnxruntime.cpu import import_onnxruntime
from ccr_deploy.backends.openvino.cpu import import_openvino
from ccr_deploy.backends.openvino.gates import separate_gates
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.machine_limits import measure_limits
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.benchmarking.roofline_results import MatrixRate
from ccr_deploy.core.processor import instruction_sets, processor_flags
from ccr_deploy.core.records import Record
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.graphs.work import graph_work
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ccr_deploy.backends.runner import Arrays

RUNS = 20
"""The number of runs, of which the fastest of each node counts."""

KINDS = {
    "convolutions": ("Conv", "FusedConv", "Convolution", "Gemm", "MatMul", "FullyConnected"),
    "gates: Sigmoid, Tanh, products, sums": (
        "Sigmoid",
        "Tanh",
        "Mul",
        "Add",
        "Sum",
        "Subgraph",
        "MulAdd",
        "Multiply",
        "Eltwise",
    ),
    "splits and concatenations": ("Split", "Concat", "Slice", "VariadicSplit", "Concatenation"),
    "changes of layout": ("ReorderInput", "ReorderOutput", "Reorder", "Transpose"),
}
"""The kinds of operators, and their names in either library."""
OTHERS = "others"


class KindTime(Record, frozen=True):
    """The time of all nodes of one kind in ms."""

    kind: str
    nodes: int
    milliseconds: float


class LibraryProfile(Record, frozen=True):
    """The nodes of an encoder in one library, by kind."""

    library: str
    version: str
    kinds: tuple[KindTime, ...]

    @property
    def milliseconds(self) -> float:
        """The time of all nodes."""
        return sum(kind.milliseconds for kind in self.kinds)


class WhereTimeGoes(Record, frozen=True):
    """The profiles of both libraries, and the matrix rate of the machine.

    `max_isa` is the value of ``ONEDNN_MAX_CPU_ISA``, None if it is not set.
    """

    schema_version: int
    model: str
    machine: MachineState
    instruction_sets: tuple[str, ...]
    max_isa: str | None
    threads: int
    multiply_accumulates: int
    matrix_rate: MatrixRate
    profiles: tuple[LibraryProfile, ...]

    @property
    def floor_milliseconds(self) -> float:
        """The time of the multiply-accumulates alone, at the matrix rate."""
        return self.multiply_accumulates / self.matrix_rate.gmac_per_second / 1e6


@click.command()
@preset_option
def main(name: str) -> None:
    """Profile the encoder in both libraries, and write the result for this machine."""
    with temporary_folder() as folder:
        result = measured(name, folder)
    slug = machine_slug(result.machine, result.instruction_sets, result.max_isa)
    publish(f"where-time-goes-{slug}", result, kinds_table(result))


def measured(name: str, folder: Path, runs: int = RUNS) -> WhereTimeGoes:
    """Profile the encoder of a preset.

    Args:
        name: the preset.
        folder: an empty folder.
        runs: the number of runs.
    """
    bundle = untrained_bundle(name, folder)
    graph = bundle.file(bundle.graph("encoder", "fp32", "iteration-major").file)
    feeds = random_feeds(bundle, "encoder", 1)
    (rate,) = measure_limits(("fp32",), thread_count(), on_gpu=False).rates
    return WhereTimeGoes(
        schema_version=1,
        model=untrained_model(name, bundle),
        machine=machine_state(),
        instruction_sets=instruction_sets(processor_flags()),
        max_isa=os.environ.get(MAX_ISA_VARIABLE),
        threads=thread_count(),
        multiply_accumulates=graph_work(ir.load(graph), 1).multiply_accumulates,
        matrix_rate=rate,
        profiles=(
            _onnxruntime(graph, feeds, folder, runs),
            _openvino(graph, feeds, runs, has_separate_gates=False),
            _openvino(graph, feeds, runs, has_separate_gates=True),
        ),
    )


def kinds_table(result: WhereTimeGoes) -> Table:
    """Return the table, one row per kind of operator, and the floor."""
    names = list(dict.fromkeys(kind.kind for profile in result.profiles for kind in profile.kinds))
    found = {(profile.library, kind.kind): kind for profile in result.profiles for kind in profile.kinds}

    def cells(name: str) -> Iterable[str]:
        for profile in result.profiles:
            kind = found.get((profile.library, name))
            share = 100 * kind.milliseconds / profile.milliseconds if kind else 0
            yield from (f"{kind.milliseconds:.2f}", f"{share:.1f} %", str(kind.nodes)) if kind else ("",) * 3

    totals = [
        cell
        for profile in result.profiles
        for cell in (f"{profile.milliseconds:.2f}", "100 %", str(sum(kind.nodes for kind in profile.kinds)))
    ]
    shares = [
        cell
        for profile in result.profiles
        for cell in (
            f"{result.floor_milliseconds:.2f}",
            f"{100 * result.floor_milliseconds / profile.milliseconds:.1f} %",
            "",
        )
    ]
    return Table(
        title="Where the time of the FP32 encoder goes",
        columns=(
            "operators",
            *(
                column
                for profile in result.profiles
                for column in (f"{profile.library}, ms", "share", "nodes")
            ),
        ),
        rows=(
            *((name, *cells(name)) for name in names),
            ("all", *totals),
            ("floor: multiply-accumulates at the matrix rate", *shares),
        ),
        note=f"{result.model}, iteration-major, batch 1, {result.threads} threads; the fastest run of each "
        f"node; {result.multiply_accumulates / 1e9:.2f} GMAC; matrix rate: "
        f"{result.matrix_rate.gmac_per_second:.1f} GMAC/s ({result.matrix_rate.measured_by}); "
        f"on {measured_on(result.machine, result.instruction_sets, result.max_isa)}; "
        + ", ".join(f"{profile.library} {profile.version}" for profile in result.profiles),
    )


def by_kind(times: Mapping[tuple[str, str], Iterable[float]]) -> tuple[KindTime, ...]:
    """Return the times of nodes by kind of operator, the longest first.

    Args:
        times: the milliseconds of each run, by a node's name and operator.
    """
    kind_of = {operator: kind for kind, operators in KINDS.items() for operator in operators}
    found: dict[str, list[float]] = defaultdict(list)
    for (_, operator), runs in times.items():
        found[kind_of.get(operator, OTHERS)].append(min(runs))
    kinds = [KindTime(kind, len(nodes), round(sum(nodes), 4)) for kind, nodes in found.items()]
    return tuple(sorted(kinds, key=lambda kind: (kind.kind == OTHERS, -kind.milliseconds)))


def _onnxruntime(graph: Path, feeds: Arrays, folder: Path, runs: int) -> LibraryProfile:
    library = import_onnxruntime("onnx")
    options = library.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, dict(feeds))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    events: Any = parse_json(Path(session.end_profiling()).read_bytes())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"], event["args"]["op_name"]].append(event["dur"] / 1000)
    return LibraryProfile("ONNX Runtime", library.__version__, by_kind(times))


def _openvino(graph: Path, feeds: Arrays, runs: int, *, has_separate_gates: bool) -> LibraryProfile:
    """Profile a graph as the backend changes it, with one convolution for each gate, or as exported."""
    library = import_openvino()
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": thread_count(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "PERF_COUNT": "YES",
    }
    core = library.Core()
    model = core.read_model(graph)
    if has_separate_gates:
        separate_gates(model)
    request = core.compile_model(model, "CPU", config).create_infer_request()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(runs):
        request.infer(dict(feeds))
        for node in request.get_profiling_info():
            if milliseconds := node.real_time.total_seconds() * 1000:
                times[node.node_name, node.node_type].append(milliseconds)
    name = "OpenVINO" if has_separate_gates else "OpenVINO, one convolution for four gates"
    return LibraryProfile(name, library.__version__, by_kind(times))


if __name__ == "__main__":
    main()
