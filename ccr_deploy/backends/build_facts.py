"""Facts about a build, which are stored in the engine's sidecar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.backends.kernels import ExecutedConvolutions, KernelListing
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.core.precisions import Precision


class BuildFacts(Record, frozen=True):
    """Facts about a build; a field is None if it is not known.

    `int8_weights` is the number of bits of an INT8 engine's weights, with the reason. `library_version` is
    the exact version, also if the engine's key covers several versions. `peak_host_memory_mib` is that of the
    builder's process, `peak_device_memory_mib` that of its library's allocations on the GPU.
    `kernels` lists the compiled kernels for each batch profile; it is empty if they are not known.
    `fp16_kernels` lists, for an INT8 engine, those of the same stage in FP16 at its smallest and its largest
    batch; `fp16_error` is why they are not known, and `fp16_seconds` the time of the comparison, which is not
    part of the build's.
    """

    library_version: str | None = None
    driver: str | None = None
    peak_host_memory_mib: float | None = None
    peak_device_memory_mib: float | None = None
    executed_convolutions: ExecutedConvolutions | None = None
    int8_weights: str | None = None
    kernels: tuple[KernelListing, ...] = ()
    fp16_kernels: tuple[KernelListing, ...] = ()
    fp16_error: str | None = None
    fp16_seconds: float = 0


def in_words(executed: ExecutedConvolutions, *, without: Precision | None = None) -> str:
    """Describe how many convolutions are executed in each known precision, except one: ``"3 in FP16"``."""
    known = (name for name in executed if name not in {"unknown", without})
    return ", ".join(f"{executed[name]} in {name.upper()}" for name in known)


def log_path(engine: Path) -> Path:
    """Return the path of the builder's log, beside the engine."""
    return engine.with_name(engine.name + ".log")
