"""The base of every backend's options, and batch profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from ccr_deploy.backends.registry import backend_class, check_name
from ccr_deploy.core.records import Record, convert

if TYPE_CHECKING:
    from typing_extensions import Self

Threads = Annotated[int, Meta(ge=0, le=1024)]
"""A number of threads; 0 means all processors that the process may use."""


class Batch(Record, frozen=True):
    """The smallest, the most common and the largest batch size of an engine, in images."""

    min: Annotated[int, Meta(ge=1)] = 1
    opt: Annotated[int, Meta(ge=1)] = 1
    max: Annotated[int, Meta(ge=1, le=4096)] = 1

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} are not in ascending order")


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
