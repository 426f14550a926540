"""The records of a comparison with peers: what ran, and what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.scaffold import machine_words
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.benchmarking.results import Environment, MachineState, Subject
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record
from ccr_deploy.core.stages import Schedule

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMA_VERSION = 2

Library = Literal["onnxruntime", "openvino"]
Group = Literal["PyTorch", "plain export", "ours"]

_INT8_INSTRUCTIONS = ("AMX-INT8", "AVX512-VNNI", "AVX-VNNI", "AVX-512", "AVX2", "I8MM", "DotProd")
"""Instruction sets, those with the fastest INT8 arithmetic first: the first that a CPU has names it."""


class Engines(Record, frozen=True, tag=True):
    """Engines of the engine store that run in sequence, each with its precision."""

    options: BackendOptions
    engines: tuple[tuple[Path, EnginePrecision], ...]


class PlainFiles(Record, frozen=True, tag=True):
    """ONNX files that run in sequence in a library with its defaults, by batch size.

    `openvino_hint` is OpenVINO's ``INFERENCE_PRECISION_HINT``; None for its default.
    """

    library: Library
    files: dict[int, tuple[Path, ...]]
    openvino_hint: str | None = None


class PlainPlans(Record, frozen=True, tag=True):
    """TensorRT's engines of plain ONNX files, which run in sequence, by batch size."""

    options: BackendOptions
    version: str
    files: dict[int, tuple[Path, ...]]


class PeerCandidate(Record, frozen=True):
    """One way to run a stage or the chain. `schedule` is None where there is none to choose."""

    name: str
    group: Group
    precision: EnginePrecision
    schedule: Schedule | None
    program: Engines | PlainFiles | PlainPlans


class Cell(Record, frozen=True):
    """What runs: a stage or the chain, at one T and one batch size; T is None for a classifier."""

    subject: Subject
    iterations: int | None
    batch: int

    def __str__(self) -> str:
        iterations = f", T={self.iterations}" if self.iterations else ""
        return f"{self.subject}{iterations}, batch {self.batch}"


class PeerTiming(Record, frozen=True):
    """One candidate in one cell.

    `flipped_percent` is the share of a code's bits that differ from PyTorch eager's, None for logits;
    `cosine` is the lowest cosine similarity of an image's logits to PyTorch eager's, None for codes.
    `samples_ms` are the raw samples in milliseconds, one tuple for each round, all of the same length.
    """

    cell: Cell
    candidate: str
    group: Group
    precision: EnginePrecision
    schedule: Schedule | None
    version: str
    latency_ms_p50: float
    flipped_percent: float | None
    cosine: float | None
    samples_ms: tuple[tuple[float, ...], ...]


class DisturbedCell(Record, frozen=True):
    """A cell that other work disturbed, and how: its ratios are left out."""

    cell: Cell
    reasons: tuple[str, ...]


class PeerBenchmark(Record, frozen=True):
    """All cells on one machine.

    `max_isa` is the value of ``ONEDNN_MAX_CPU_ISA``, None if it is not set. `left_out` are error messages of
    candidates that could not be built or run. `unreliable_reasons` are those of the whole run: a busy machine
    before the start, or an environment that changed.
    """

    schema_version: int
    created_by: str
    model: str
    machine: MachineState
    instruction_sets: tuple[str, ...]
    max_isa: str | None
    timings: tuple[PeerTiming, ...]
    left_out: tuple[str, ...]
    environment_before: Environment
    environment_after: Environment
    disturbed_cells: tuple[DisturbedCell, ...]
    unreliable_reasons: tuple[str, ...]

    def is_disturbed(self, cell: Cell) -> bool:
        """Return whether other work disturbed a cell."""
        return any(disturbed.cell == cell for disturbed in self.disturbed_cells)

    @property
    def slug(self) -> str:
        """The machine and its instruction set, as a part of a file's name."""
        return machine_slug(self.machine, self.instruction_sets, self.max_isa)

    @property
    def measured_on(self) -> str:
        """The machine and its instruction sets, for the notes of tables."""
        return measured_on(self.machine, self.instruction_sets, self.max_isa)


def measured_on(machine: MachineState, instruction_sets: Collection[str], max_isa: str | None) -> str:
    """Return the machine and its instruction sets, for the notes of tables.

    Args:
        machine: the machine.
        instruction_sets: the names of the CPU's instruction sets.
        max_isa: the newest instruction set that oneDNN may use; None for no limit.
    """
    limit = f", limited to {max_isa}" if max_isa else ""
    gpu = f"{machine.gpu}, " if machine.gpu else ""
    return f"{gpu}{machine_words(machine)}, {' '.join(instruction_sets)}{limit}"


def machine_slug(machine: MachineState, instruction_sets: Collection[str], max_isa: str | None) -> str:
    """Return the machine and the instruction set that its INT8 arithmetic uses, as a part of a file's name.

    Args:
        machine: the machine; its GPU is named instead of the CPU, if there is one.
        instruction_sets: the names of the CPU's instruction sets.
        max_isa: the newest instruction set that oneDNN may use; None for no limit.
    """
    if machine.gpu:
        return slug(machine.gpu)
    newest = next((name for name in _INT8_INSTRUCTIONS if name in instruction_sets), "")
    limit = f" at most {max_isa}" if max_isa else ""
    processor = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*?(?= \()", "", machine.processor)
    return slug(f"{processor} {newest}{limit}")


def slug(text: str) -> str:
    """Return a text in lower case with hyphens between its words, as a part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
