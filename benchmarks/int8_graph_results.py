"""The results of `benchmarks.int8_graphs`, and their tables."""

from __future__ import annotations

from benchmarks.scaffold import machine_words
from ccr_deploy.backends.kernels import Totals
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.kernel_tables import COUNTING
from ccr_deploy.reporting.table import Table

BATCHES = (1, 8, 32)
"""The batches that are compiled, each for itself."""


class StoredWeights(Record, frozen=True):
    """A graph with INT8 weights, compared with the same graph with FP16 weights behind Q/DQ pairs.

    `cpu_ratio` is the CPU time of the INT8 form divided by that of the other, by library; `equal_results`
    tells whether the engines' results are equal bit by bit.
    """

    graph: str
    fp16_bytes: int
    int8_bytes: int
    fp16_build_seconds: float
    int8_build_seconds: float
    equal_kernels: bool
    cpu_ratio: dict[str, float]
    equal_results: dict[str, bool]


class BatchKernels(Record, frozen=True):
    """The kernels of TensorRT-RTX for one batch, and what they move per image."""

    batch: int
    kernels: int
    per_image: Totals


class PlacementKernels(Record, frozen=True):
    """The kernels of a graph with a placement of Q/DQ pairs."""

    graph: str
    placement: str
    batches: tuple[BatchKernels, ...]


class SevenBits(Record, frozen=True):
    """The bits of the code that differ from FP32 with 7-bit weights made in one way."""

    model: str
    images: int
    way: str
    flipped_percent: float


class Int8Graphs(Record, frozen=True):
    """All measurements."""

    schema_version: int
    model: str
    capability: str
    rounds: int
    machine: MachineState
    weights: tuple[StoredWeights, ...]
    placements: tuple[PlacementKernels, ...]
    seven_bits: tuple[SevenBits, ...]


def weights_table(result: Int8Graphs) -> Table:
    """Return the table of how weights are stored, one row per graph."""
    return Table(
        title="INT8 weights, stored in INT8 or in FP16 behind Q/DQ pairs",
        columns=(
            "graph",
            "FP16 MB",
            "INT8 MB",
            "RTX build s, FP16",
            "INT8",
            "kernels",
            *(f"CPU time, {library}" for library in result.weights[0].cpu_ratio),
            "results",
        ),
        rows=tuple(
            (
                found.graph,
                f"{found.fp16_bytes / 1e6:.2f}",
                f"{found.int8_bytes / 1e6:.2f}",
                f"{found.fp16_build_seconds:.1f}",
                f"{found.int8_build_seconds:.1f}",
                "equal" if found.equal_kernels else "different",
                *(f"{ratio:.2f}" for ratio in found.cpu_ratio.values()),
                "equal" if all(found.equal_results.values()) else "different",
            )
            for found in result.weights
        ),
        note=f"{result.model}; CPU time of an inference at batch 1 divided by that with FP16 weights, "
        f"medians of {result.rounds} rounds, on {machine_words(result.machine)}",
    )


def placements_table(result: Int8Graphs) -> Table:
    """Return the table of placements: kernels, and bytes for an image at each batch."""
    return Table(
        title="Placements of Q/DQ pairs",
        columns=(
            "graph",
            "Q/DQ pairs",
            "kernels",
            "activations MB",
            *(f"weights MB at batch {batch}" for batch in BATCHES),
        ),
        rows=tuple(
            (
                found.graph,
                found.placement,
                str(found.batches[0].kernels),
                f"{found.batches[0].per_image.activation_bytes / 1e6:.1f}",
                *(f"{batch.per_image.weight_bytes / 1e6:.1f}" for batch in found.batches),
            )
            for found in result.placements
        ),
        note=f"{result.model}; TensorRT-RTX for compute capability {result.capability}; kernels and "
        f"activations at batch 1, bytes per image; {COUNTING}",
    )


def bits_table(result: Int8Graphs) -> Table:
    """Return the table of 7-bit weights: flipped bits by the way they are made."""
    ways = list(dict.fromkeys(found.way for found in result.seven_bits))
    by_model: dict[str, dict[str, float]] = {}
    for found in result.seven_bits:
        by_model.setdefault(f"{found.model}, {found.images} images", {})[found.way] = found.flipped_percent
    return Table(
        title="Weights of 7 bits: flipped bits",
        columns=("model", *ways),
        rows=tuple((name, *(f"{flips[way]:.3f} %" for way in ways)) for name, flips in by_model.items()),
        note="compared with FP32; encoders, iteration-major, emulated",
    )
