"""The messages between the process of a build and its parent."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.kernels import KernelListing
from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions
from ccr_deploy.core.precisions import EnginePrecision
from ccr_deploy.core.records import Record


class BuildRequest(Record, frozen=True):
    """A request to build one engine.

    `input_shapes` holds the shape of each input of the graph by name, without the batch dimension. The engine
    is inspected if `can_run`: if this machine can deserialize it. `fp16_graph` is a graph whose kernels are
    listed for a comparison.
    """

    graph: Path
    engine: Path
    options: TensorRtOptions | RtxOptions
    precision: EnginePrecision
    batch: Batch
    input_shapes: dict[str, tuple[int, ...]]
    timing_cache: Path | None
    can_run: bool
    fp16_graph: Path | None = None


class Progressed(Record, frozen=True, tag=True):
    """The progress of the build."""

    percent: int


class Built(Record, frozen=True, tag=True):
    """The engine is written. If the request has an FP16 graph, `Compared` follows."""

    facts: BuildFacts


class Compared(Record, frozen=True, tag=True):
    """The kernels of the FP16 graph; `error` is one line if it cannot be compiled."""

    kernels: tuple[KernelListing, ...] = ()
    error: str | None = None


class Failed(Record, frozen=True, tag=True):
    """The engine cannot be built; `reason` is one line."""

    reason: str


Answer: TypeAlias = Progressed | Built | Failed
