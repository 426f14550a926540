"""Check whether this machine has a usable GPU."""

from __future__ import annotations

from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.errors import CcrDeployError


def gpu_obstacle() -> str | None:
    """Return the reason why no GPU is usable; None if one is."""
    try:
        find_gpu()
    except CcrDeployError as error:
        return str(error)
    return None


def gpu_is_there() -> bool:
    return gpu_obstacle() is None
