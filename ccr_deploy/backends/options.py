"""What the options of every backend have: a name in targets, sidecars and messages, and a batch profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from ccr_deploy.backends.registry import backend_class, check_name
from ccr_deploy.core.records import Record, convert

if TYPE_CHECKING:
    from typing_extensions import Self

Threads = Annotated[int, Meta(ge=0, le=1024)]
"""A number of threads; 0 are as many as the process may use."""


class Batch(Record, frozen=True):
    """The smallest, most common and largest number of images in one run of an engine."""

    min: Annotated[int, Meta(ge=1)] = 1
    opt: Annotated[int, Meta(ge=1)] = 1
    max: Annotated[int, Meta(ge=1, le=4096)] = 1

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} are not in this order")


class BackendOptions:
    """The options of a backend. Each has a record of its own, which is tagged by the backend's name.

    A field of this type is read as the record of the backend that its ``backend`` names.
    """

    __slots__ = ()
    __struct_config__: ClassVar[Any]
    threads: int = 0
    """The threads of the processor that an engine runs with; 0 are as many as the process may use."""

    @property
    def backend(self) -> str:
        """The backend's name."""
        return str(self.__struct_config__.tag)

    @property
    def uses_gpu(self) -> bool:
        """Whether engines compute on a GPU."""
        return False

    def bound_version(self, version: str) -> str:
        """Return what of the library's version engines are bound to: all of it, unless they say otherwise."""
        return version

    @classmethod
    def from_builtins(cls, content: object) -> Self:
        """Read the options of whichever backend the content names.

        Raises:
            FieldError: there is no such backend, or a field is missing, unknown or wrong.
        """
        name = content.get("backend") if isinstance(content, dict) else None
        return convert(backend_class(check_name(name)).options_class, content)


class GpuOptions(BackendOptions):
    """The options of a backend that computes on a GPU alone."""

    __slots__ = ()

    @property
    def uses_gpu(self) -> bool:
        """Always."""
        return True
