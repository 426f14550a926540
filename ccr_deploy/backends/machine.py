"""Which machines a target is for, where its engines are built on the machine that runs them."""

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
    """Which machines a target is for.

    `gpus` are names as CUDA gives them, or shell patterns of such names. The library's version is at least
    `from_version` and below `below_version`.
    """

    gpus: Annotated[tuple[str, ...], Meta(min_length=1)]
    from_version: Version
    below_version: Version

    def has_gpu(self, name: str) -> bool:
        """Whether a GPU of this name is among those of the target."""
        return any(fnmatchcase(name, pattern) for pattern in self.gpus)


def check_fits(target: str, machine: Machine, gpu: Gpu, library: str, version: str) -> None:
    """Raise an error if a GPU or a library's version is not among those of a target.

    Args:
        target: the target's name.
        machine: the machines that it names.
        gpu: this machine's.
        library: the library's title.
        version: the library's version here.

    Raises:
        WrongUsageError: one is not.
    """
    if not machine.has_gpu(gpu.name):
        raise WrongUsageError(
            f"the target {target} is for {' or '.join(machine.gpus)}, this machine's GPU is {gpu.name}: "
            "choose another target, or write one (ccr-deploy doctor shows what fits)"
        )
    first, end = version_numbers(machine.from_version), version_numbers(machine.below_version)
    if not first <= version_numbers(version) < end:
        raise WrongUsageError(
            f"the target {target} is for {library} from {machine.from_version} and below "
            f"{machine.below_version}, here is {version}: choose another target "
            "(ccr-deploy doctor shows what fits)"
        )
