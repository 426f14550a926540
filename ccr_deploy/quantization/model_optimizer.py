"""Model Optimizer: imported on first use, without its output, and with errors of this project."""

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
    from types import ModuleType


def autocast() -> Callable[..., Any]:
    """Import Model Optimizer's conversion to mixed precision.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
    """
    with quiet(), _or_missing():
        from modelopt.onnx.autocast import convert_to_mixed_precision
    return convert_to_mixed_precision


def quantizer() -> Callable[..., Any]:
    """Import Model Optimizer's quantization.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
    """
    with quiet(), _or_missing():
        from modelopt.onnx.quantization import quantize
    return quantize


def torch_quantization() -> ModuleType:
    """Import Model Optimizer's fake quantization of PyTorch modules.

    Raises:
        MissingExtraError: if Model Optimizer, or a package that this part of it needs, is not installed.
    """
    with quiet(), _or_missing("precision,train", "quantization-aware training"):
        import modelopt.torch.quantization as library
    return library


def check_installed() -> None:
    """Raise an error if Model Optimizer is missing; called before long work whose last step needs it.

    Raises:
        MissingExtraError: if Model Optimizer is not installed.
    """
    autocast()


@contextmanager
def converting(task: str) -> Iterator[Path]:
    """Yield a temporary folder for the files that Model Optimizer reads and writes.

    Raises:
        PrecisionError: if Model Optimizer cannot do the task.
    """
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-") as folder, quiet():
        try:
            yield Path(folder)
        except (OSError, CcrDeployError):
            raise
        except Exception as error:  # its exceptions share no base class
            raise PrecisionError(f"Model Optimizer cannot {task} ({reason_of(error)})") from error


@contextmanager
def restoring_onnxruntime() -> Iterator[None]:
    """Restore ONNX Runtime's quantization classes afterwards, which Model Optimizer patches permanently.

    Otherwise, a calibration after a quantization in the same process would find other ranges than one before
    it.
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
    """Suppress the output and the log of libraries, unless ``-v`` is given."""
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
def _or_missing(extra: str = "precision", purpose: str = "converting to FP16 or INT8") -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        name = error.name or "nvidia-modelopt"
        package = "nvidia-modelopt" if name.startswith("modelopt") else name
        raise MissingExtraError(package, extra, purpose) from error
