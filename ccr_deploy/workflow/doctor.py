"""Diagnosis of this machine: hardware, packages, supported targets, default target."""

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
    """Whether this machine can build and run a target's engines; an obstacle is the reason why not."""

    target: str
    description: str
    build_obstacle: str | None
    run_obstacle: str | None


@dataclass(frozen=True)
class Diagnosis:
    """This machine, the versions of the packages that backends need, and every shipped target.

    `int8_weights` is the number of bits of the weights of OpenVINO's INT8 engines on this CPU, with the
    reason. `gpu_extras` are the extras that the NVIDIA driver supports, None if there is no driver.
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
    """Inspect this machine; this imports the library of every backend."""
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
    """Return the target for this machine's GPU, or `CPU_TARGET` if this machine can run no GPU target.

    Backends are tried in the registry's order, TensorRT for this GPU model first. Targets with a dynamic
    batch are for servers that do not pad batches, and are never the default.
    """
    if obstacle(find_gpu):
        return CPU_TARGET
    targets = [(name, load_target(name)) for name in target_files()]
    preference = list(BACKENDS)
    for name, target in sorted(targets, key=lambda entry: preference.index(entry[1].backend)):
        is_offered = target.uses_gpu and not target.is_reference and not target.has_dynamic_batch
        if is_offered and not _run_obstacle(name, target):
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
    """Return the target's backend after checking that this is one of the target's machines."""
    backend = make_backend(target.options)
    backend.check_machine(name, target.machine)
    return backend


def obstacle(check: Callable[[], object]) -> str | None:
    """Return the error message of a check, or None if it passes."""
    try:
        check()
    except CcrDeployError as error:
        return str(error)
    return None


def _packages() -> tuple[str, ...]:
    """Return the packages of the backends in the registry's order, then the one that makes precisions."""
    of_backends = (package for name in BACKENDS for package in backend_class(name).packages)
    return (*dict.fromkeys(of_backends), _QUANTIZER)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
