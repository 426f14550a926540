"""The two flavours of TensorRT: which package they are, and which versions this project knows."""

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
"""JetPack 6.0's: the last that takes precision as builder flags, and the only such version that is known."""
_JETPACKS = "JetPack 6.0 has 8.6, 6.1 and 6.2 have 10.3, 7.0 has 10.13"


def flavour_of(options: TensorRtOptions | RtxOptions) -> Flavour:
    """The flavour that takes such options."""
    return RTX if options.backend == RTX.name else TENSORRT


def extra_of(flavour: Flavour) -> str:
    """Return the extra that brings a flavour's library, or on a Jetson what is needed beside it."""
    return "rtx" if flavour is RTX else extras_here().tensorrt or "tensorrt"


def import_library(flavour: Flavour) -> Any:  # noqa: ANN401 -- the library has no types
    """The flavour's package, of a version that this project knows.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is too old or too new.
    """
    try:
        library = importlib.import_module(flavour.package)
    except ImportError:
        jetson = "; on a Jetson JetPack has it: python3 -m venv --system-site-packages"
        raise MissingExtraError(
            flavour.package,
            extra_of(flavour),
            f"the backend {flavour.name}",
            jetson if flavour is TENSORRT else "",
        ) from None
    check_version(flavour, library.__version__)
    return library


def check_version(flavour: Flavour, version: str) -> None:
    """Raises an EngineError, which says what to do, where a version is not known to work.

    These are TensorRT 8.6 and 10.3 to 11, and TensorRT-RTX from 1.5 on, which knows compute capability 12.1.
    """
    found = version_numbers(version)[:2]
    if flavour is RTX:
        if found < (1, 5):
            raise EngineError(
                f"TensorRT-RTX {version} is older than 1.5: pip install --upgrade 'ccr-deploy[rtx]'"
            )
    elif found >= (12, 0):
        raise EngineError(f"TensorRT {version} is newer than this program knows: pip install 'tensorrt<12'")
    elif found < (10, 3) and found != _WEAKLY_TYPED:
        raise EngineError(
            f"TensorRT {version} is not supported, only 8.6 and 10.3 to 11: on a Jetson update JetPack "
            f"({_JETPACKS}), elsewhere pip install --upgrade 'ccr-deploy[{extra_of(flavour)}]'"
        )


def is_strongly_typed(flavour: Flavour, version: str) -> bool:
    """Whether networks take their precision from the graph alone, without builder flags."""
    return flavour is RTX or version_numbers(version)[:2] != _WEAKLY_TYPED
