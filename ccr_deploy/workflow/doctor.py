"""What this machine is, which targets it can build and run, and which of them fits it best."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from ccr_deploy import __version__
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE, int8_weights_here
from ccr_deploy.backends.registry import BACKENDS, backend_class, make_backend
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.core.gpu_driver import GpuExtras, extras_here, find_driver
from ccr_deploy.core.processor import processor_device
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.targets.schema import load_target, target_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from ccr_deploy.backends.base import Backend
    from ccr_deploy.targets.schema import Target

CPU_TARGET = "cpu"
_QUANTIZER = "nvidia-modelopt"


@dataclass(frozen=True)
class TargetFit:
    """Whether a target's engines can be built and run here; where they cannot, why not."""

    target: str
    description: str
    build_obstacle: str | None
    run_obstacle: str | None


@dataclass(frozen=True)
class Diagnosis:
    """This machine, the packages that matter here with their versions, and every shipped target.

    `int8_weights` says how many bits the weights of OpenVINO's INT8 engines have on this CPU, and why.
    `gpu_extras` are the extras that the NVIDIA driver takes, None where there is no driver.
    """

    ccr_deploy: str
    python: str
    operating_system: str
    processor: str
    usable_cores: int
    int8_weights: str
    gpu: str | None
    gpu_driver: str | None
    gpu_obstacle: str | None
    gpu_extras: GpuExtras | None
    packages: dict[str, str | None]
    targets: tuple[TargetFit, ...]
    default_target: str


def diagnose() -> Diagnosis:
    """Looks at this machine; every library that a target needs is loaded for it."""
    gpu_obstacle = obstacle(find_gpu)
    gpu = None if gpu_obstacle else find_gpu()
    return Diagnosis(
        ccr_deploy=__version__,
        python=platform.python_version(),
        operating_system=platform.platform(terse=True),
        processor=processor_device(),
        usable_cores=thread_count(),
        int8_weights=str(int8_weights_here(os.environ.get(MAX_ISA_VARIABLE))),
        gpu=str(gpu) if gpu else None,
        gpu_driver=gpu.driver if gpu else None,
        gpu_obstacle=gpu_obstacle,
        gpu_extras=extras_here() if find_driver() else None,
        packages={name: _version(name) for name in _packages()},
        targets=tuple(_fit(name, load_target(name)) for name in target_files()),
        default_target=default_target(),
    )


def default_target() -> str:
    """Return the target that fits this machine's GPU; without one, or without a library for it, `CPU_TARGET`.

    Backends come in the registry's order: TensorRT for this very GPU first.
    """
    if obstacle(find_gpu):
        return CPU_TARGET
    targets = [(name, load_target(name)) for name in target_files()]
    preference = list(BACKENDS)
    for name, target in sorted(targets, key=lambda entry: preference.index(entry[1].backend)):
        if target.uses_gpu and not target.is_reference and not _run_obstacle(name, target):
            return name
    return CPU_TARGET


def _fit(name: str, target: Target) -> TargetFit:
    return TargetFit(
        target=name,
        description=target.description,
        build_obstacle=obstacle(lambda: _backend_here(name, target).check_builds_here()),
        run_obstacle=_run_obstacle(name, target),
    )


def _run_obstacle(name: str, target: Target) -> str | None:
    return obstacle(lambda: _backend_here(name, target).check_runs_here())


def _backend_here(name: str, target: Target) -> Backend:
    """The target's backend, on one of the target's machines."""
    backend = make_backend(target.options)
    backend.check_machine(name, target.machine)
    return backend


def obstacle(check: Callable[[], object]) -> str | None:
    """Return what a check complains of; None where it does not."""
    try:
        check()
    except CcrDeployError as error:
        return str(error)
    return None


def _packages() -> tuple[str, ...]:
    """The packages that matter to the backends and to the precisions, in the registry's order."""
    of_backends = (package for name in BACKENDS for package in backend_class(name).packages)
    return (*dict.fromkeys(of_backends), _QUANTIZER)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
