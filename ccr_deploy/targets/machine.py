"""Whether this machine is one that a target was written for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import CcrDeployError, WrongUsageError

if TYPE_CHECKING:
    from ccr_deploy.core.gpu import Gpu
    from ccr_deploy.targets.schema import Machine, TensorRtTarget


def check_machine(name: str, target: TensorRtTarget, version: str) -> None:
    """Does nothing where the GPU, and TensorRT's `version`, are among those of the target called `name`.

    Raises:
        WrongUsageError: one is not, or there is no GPU, or nobody can look for one.
    """
    try:
        gpu = find_gpu()
    except CcrDeployError as error:
        raise WrongUsageError(
            f"the target {name} is built where it runs, on {' or '.join(target.machine.gpus)}, but {error}: "
            "go there, or choose another target (ccr-deploy doctor shows what fits)"
        ) from error
    check_fits(name, target.machine, gpu, version)


def check_fits(name: str, machine: Machine, gpu: Gpu, version: str) -> None:
    """Does nothing where a GPU, and TensorRT's `version`, are among those of the target called `name`.

    Raises:
        WrongUsageError: one is not.
    """
    if not any(fnmatchcase(gpu.name, pattern) for pattern in machine.gpus):
        raise WrongUsageError(
            f"the target {name} is for {' or '.join(machine.gpus)}, this machine's GPU is {gpu.name}: choose "
            "another target, or write one (ccr-deploy doctor shows what fits)"
        )
    first, end = version_numbers(machine.from_version), version_numbers(machine.below_version)
    if not first <= version_numbers(version) < end:
        raise WrongUsageError(
            f"the target {name} is for TensorRT from {machine.from_version} and below "
            f"{machine.below_version}, here is {version}: choose another target "
            "(ccr-deploy doctor shows what fits)"
        )
