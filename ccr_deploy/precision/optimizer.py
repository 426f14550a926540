"""Model Optimizer, imported when it is needed and kept quiet."""

from __future__ import annotations

import contextlib
import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ccr_deploy.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def autocast() -> Callable[..., Any]:
    """Model Optimizer's conversion to mixed precision.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
    """
    with quiet(), _or_missing():
        from modelopt.onnx.autocast import convert_to_mixed_precision
    return convert_to_mixed_precision


def quantizer() -> Callable[..., Any]:
    """Model Optimizer's quantization.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
    """
    with quiet(), _or_missing():
        from modelopt.onnx.quantization import quantize
    return quantize


def check_installed() -> None:
    """Fails before any work is done rather than after it.

    Raises:
        MissingExtraError: Model Optimizer is not installed.
    """
    autocast()


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what libraries print and log, but for ``-v``."""
    if logging.getLogger().isEnabledFor(logging.INFO):
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _or_missing() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        name = error.name or "nvidia-modelopt"
        package = "nvidia-modelopt" if name.startswith("modelopt") else name
        raise MissingExtraError(package, "precision", "converting to FP16 or INT8") from error
