"""What a build's process and its owner tell each other."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record


class BuildRequest(Record, frozen=True):
    """One engine to be built.

    `input_shapes` are those of the graph's inputs behind the batch, by name. The engine is inspected where
    `can_run` says that this machine can read it.
    """

    graph: Path
    engine: Path
    options: TensorRtOptions | RtxOptions
    precision: EnginePrecision
    batch: Batch
    input_shapes: dict[str, tuple[int, ...]]
    timing_cache: Path | None
    can_run: bool


class Progressed(Record, frozen=True, tag=True):
    """How much of the build is done."""

    percent: int


class Built(Record, frozen=True, tag=True):
    """The engine is written."""

    facts: BuildFacts


class Failed(Record, frozen=True, tag=True):
    """It cannot be built; why, in one line."""

    reason: str


Answer: TypeAlias = Progressed | Built | Failed
