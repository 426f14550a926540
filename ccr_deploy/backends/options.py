"""The base of every backend's options, and the batch sizes of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from ccr_deploy.backends.registry import backend_class, check_name
from ccr_deploy.core.records import Record, convert

if TYPE_CHECKING:
    from typing_extensions import Self

Threads = Annotated[int, Meta(ge=0, le=1024)]
"""A number of threads; 0 means all processors that the process may use."""


BatchSizes = Annotated[tuple[Annotated[int, Meta(ge=1, le=4096)], ...], Meta(min_length=1, max_length=8)]
"""Batch sizes in images, in ascending order."""


@dataclass(frozen=True)
class BatchProfile:
    """An optimization profile: the smallest, the most common and the largest batch size, in images."""

    min: int
    opt: int
    max: int


class Batch(Record, frozen=True):
    """The batch sizes of an engine, in images.

    Each size has a profile that accepts only this size: the runner pads a batch to the smallest size that it
    fits. A `dynamic` engine has one profile instead, from 1 to its only size, for servers that do not pad.
    """

    sizes: BatchSizes = (1,)
    dynamic: bool = False

    def __post_init__(self) -> None:
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"{list(self.sizes)}: sizes are not unique and in ascending order")
        if self.dynamic and len(self.sizes) > 1:
            raise ValueError(f"{list(self.sizes)}: with dynamic = true, give only the largest size")

    @property
    def largest(self) -> int:
        """The largest batch size."""
        return self.sizes[-1]

    @property
    def smallest(self) -> int:
        """The smallest batch size that runs without padding."""
        return 1 if self.dynamic else self.sizes[0]

    @property
    def profiles(self) -> tuple[BatchProfile, ...]:
        """The optimization profiles of the engine.

        A dynamic profile is optimized for its largest batch: a server forms larger batches the more load it
        has, so that the largest one determines its highest throughput.
        """
        if self.dynamic:
            return (BatchProfile(1, self.largest, self.largest),)
        return tuple(BatchProfile(size, size, size) for size in self.sizes)

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.sizes))
        return f"batch 1 to {sizes}" if self.dynamic else f"batch {sizes}"


class BackendOptions:
    """The options of a backend. Each backend has its own record, tagged with the backend's name.

    A field of this type is read as the record of the backend that its key ``backend`` names.
    """

    __slots__ = ()
    __struct_config__: ClassVar[Any]
    threads: int = 0
    """The number of CPU threads of an engine; 0 means all processors that the process may use."""

    @property
    def backend(self) -> str:
        """The backend's name."""
        return str(self.__struct_config__.tag)

    @property
    def uses_gpu(self) -> bool:
        """Whether engines compute on a GPU."""
        return False

    def bound_version(self, version: str) -> str:
        """Return the part of the library's version that engines are bound to: by default all of it."""
        return version

    @classmethod
    def from_builtins(cls, content: object) -> Self:
        """Read the options of the backend that `content` names.

        Raises:
            FieldError: if there is no such backend, or a field is missing, unknown or wrong.
        """
        name = content.get("backend") if isinstance(content, dict) else None
        return convert(backend_class(check_name(name)).options_class, content)


class GpuOptions(BackendOptions):
    """The options of a backend that computes only on a GPU."""

    __slots__ = ()

    @property
    def uses_gpu(self) -> bool:
        """Always."""
        return True
