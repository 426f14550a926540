"""The two flavours of TensorRT: their Python packages, and the supported versions."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.gpu_driver import extras_here
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from ccr_deploy.backends.tensorrt.options import RtxOptions, TensorRtOptions


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries: its name in targets, its title and its Python package."""

    name: str
    title: str
    package: str


TENSORRT = Flavour("tensorrt", "TensorRT", "tensorrt")
RTX = Flavour("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx")

_WEAKLY_TYPED = (8, 6)
"""The TensorRT of JetPack 6.0: the only supported version in which builder flags select the precision."""
_JETPACKS = "JetPack 6.0 has 8.6, 6.1 and 6.2 have 10.3, 7.0 has 10.13"


def flavour_of(options: TensorRtOptions | RtxOptions) -> Flavour:
    """Return the flavour that options are for."""
    return RTX if options.backend == RTX.name else TENSORRT


def extra_of(flavour: Flavour) -> str:
    """Return the extra that installs a flavour, or on a Jetson the extra to add to JetPack's TensorRT."""
    return "rtx" if flavour is RTX else extras_here().tensorrt or "tensorrt"


def import_library(flavour: Flavour) -> Any:  # noqa: ANN401 -- the library has no types
    """Import the flavour's package, and check its version.

    Raises:
        MissingExtraError: if it is not installed.
        EngineError: if its version is not supported.
    """
    try:
        library = importlib.import_module(flavour.package)
    except ImportError:
        jetson = "; on a Jetson, use JetPack's TensorRT: python3 -m venv --system-site-packages"
        raise MissingExtraError(
            flavour.package,
            extra_of(flavour),
            f"the backend {flavour.name}",
            jetson if flavour is TENSORRT else "",
        ) from None
    check_version(flavour, library.__version__)
    return library


def check_version(flavour: Flavour, version: str) -> None:
    """Raise an error, with the command to run, if a version is not supported.

    Supported are TensorRT 8.6 (not tested) and 10.3 to 11, and TensorRT-RTX 1.5 and later; 1.5 is the first
    that supports compute capability 12.1.

    Raises:
        EngineError: if the version is not supported.
    """
    found = version_numbers(version)[:2]
    if flavour is RTX:
        if found < (1, 5):
            raise EngineError(
                f"TensorRT-RTX {version} is older than 1.5: pip install --upgrade 'ccr-deploy[rtx]'"
            )
    elif found >= (12, 0):
        raise EngineError(f"TensorRT {version} is not supported yet: pip install 'tensorrt<12'")
    elif found < (10, 3) and found != _WEAKLY_TYPED:
        raise EngineError(
            f"TensorRT {version} is not supported: use 10.3 to 11; on a Jetson update JetPack "
            f"({_JETPACKS}), elsewhere pip install --upgrade 'ccr-deploy[{extra_of(flavour)}]'"
        )


def is_strongly_typed(flavour: Flavour, version: str) -> bool:
    """Return whether networks are strongly typed, so that only the graph sets the precision."""
    return flavour is RTX or version_numbers(version)[:2] != _WEAKLY_TYPED
