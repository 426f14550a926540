"""What a build told beside its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from pathlib import Path


class ExecutedConvolutions(Record, frozen=True):
    """In which precision an engine executes its convolutions, as its library's inspector tells.

    `unknown` are those that the inspector does not tell about.
    """

    int8: int = 0
    fp16: int = 0
    fp32: int = 0
    unknown: int = 0


class BuildFacts(Record, frozen=True):
    """What a build told beside its engine; None where that is not known here.

    `int8_weights` says how many bits an INT8 engine's weights have, and why. `library_version` is the exact
    one, where the key's covers several. The peaks are those of the builder's process and of its library's
    allocations on the GPU.
    """

    library_version: str | None = None
    driver: str | None = None
    peak_host_memory_mib: float | None = None
    peak_device_memory_mib: float | None = None
    executed_convolutions: ExecutedConvolutions | None = None
    int8_weights: str | None = None


def log_path(engine: Path) -> Path:
    """Where what an engine's builder printed stands."""
    return engine.with_name(engine.name + ".log")
