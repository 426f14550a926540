"""What a build's process and its owner tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.build_facts import BuildFacts
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.targets.options import Batch, RtxOptions, TensorRtOptions


@dataclass(frozen=True)
class BuildRequest:
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


@dataclass(frozen=True)
class Progressed:
    """How much of the build is done."""

    percent: int


@dataclass(frozen=True)
class Built:
    """The engine is written."""

    facts: BuildFacts


@dataclass(frozen=True)
class Failed:
    """It cannot be built; why, in one line."""

    reason: str
