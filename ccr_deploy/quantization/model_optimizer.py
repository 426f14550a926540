"""Model Optimizer, imported when it is needed and kept quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccr_deploy.core.printable import reason_of
from ccr_deploy.errors import CcrDeployError, MissingExtraError, PrecisionError

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
def converting(task: str) -> Iterator[Path]:
    """Yield a folder for the files that Model Optimizer reads and writes, which goes when it is done.

    Raises:
        PrecisionError: it cannot do its task.
    """
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-") as folder, quiet():
        try:
            yield Path(folder)
        except (OSError, CcrDeployError):
            raise
        except Exception as error:  # its exceptions share no base class
            raise PrecisionError(f"Model Optimizer cannot {task} ({reason_of(error)})") from error


@contextmanager
def unpatched_afterwards() -> Iterator[None]:
    """Takes back what Model Optimizer's quantization changes in ONNX Runtime's classes for good.

    Otherwise a calibration would find other ranges after a quantization in the same process than before it.
    """
    from onnxruntime.quantization import base_quantizer, calibrate, qdq_quantizer

    owners = [
        thing
        for module in (base_quantizer, calibrate, qdq_quantizer)
        for thing in (module, *(each for each in vars(module).values() if isinstance(each, type)))
        if getattr(thing, "__module__", thing.__name__).startswith("onnxruntime.")
    ]
    before = [dict(vars(owner)) for owner in owners]
    try:
        yield
    finally:
        for owner, attributes in zip(owners, before, strict=True):
            for name, value in attributes.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)


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
