"""What a build told beside its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from ccr_deploy.core.precisions import Precision
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from pathlib import Path


ExecutedConvolutions: TypeAlias = dict[Precision | Literal["unknown"], int]
"""How many convolutions an engine executes in each precision; its inspector may not tell of all."""


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


def in_words(executed: ExecutedConvolutions, *, without: Precision | None = None) -> str:
    """Return how many convolutions are executed in each precision that is known, but for one."""
    known = (name for name in executed if name not in {"unknown", without})
    return ", ".join(f"{executed[name]} in {name.upper()}" for name in known)


def log_path(engine: Path) -> Path:
    """Where what an engine's builder printed stands."""
    return engine.with_name(engine.name + ".log")
