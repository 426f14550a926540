"""The machines of a target whose engines are built on the machine that runs them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from ccr_deploy.core.records import Record
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.core.gpu import Gpu

Version = Annotated[str, Meta(pattern=r"^\d+(\.\d+)*\Z")]


class Machine(Record, frozen=True):
    """The machines that a target is for.

    `gpus` are GPU names as CUDA reports them, or shell patterns of such names. The version of the library is
    at least `from_version` and below `below_version`.
    """

    gpus: Annotated[tuple[str, ...], Meta(min_length=1)]
    from_version: Version
    below_version: Version

    def has_gpu(self, name: str) -> bool:
        """Return whether the target is for a GPU of this name."""
        return any(fnmatchcase(name, pattern) for pattern in self.gpus)


def check_fits(target: str, machine: Machine, gpu: Gpu, library: str, version: str) -> None:
    """Raise an error if a target is not for a GPU or for a version of its library.

    Args:
        target: the target's name.
        machine: the machines that it names.
        gpu: the GPU of this machine.
        library: the library's title.
        version: the version of the library on this machine.

    Raises:
        WrongUsageError: if the GPU or the version does not match.
    """
    if not machine.has_gpu(gpu.name):
        raise WrongUsageError(
            f"the target {target} is for {' or '.join(machine.gpus)}, this machine's GPU is {gpu.name}: "
            "choose another target, or write one (ccr-deploy doctor lists those that fit)"
        )
    first, end = version_numbers(machine.from_version), version_numbers(machine.below_version)
    if not first <= version_numbers(version) < end:
        raise WrongUsageError(
            f"the target {target} is for {library} from {machine.from_version} and below "
            f"{machine.below_version}, this machine has {version}: choose another target "
            "(ccr-deploy doctor lists those that fit)"
        )
