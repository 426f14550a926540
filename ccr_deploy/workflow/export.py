"""What makes a bundle's graphs in other precisions than FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.errors import MissingExtraError, WrongUsageError
from ccr_deploy.quantization import model_optimizer
from ccr_deploy.quantization.converters import CONVERTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.core.precisions import Precision
    from ccr_deploy.quantization.converters import Converter


def installed_converters() -> Mapping[Precision, Converter]:
    """The converters that `export_bundle` makes FP16 graphs with.

    Raises:
        WrongUsageError: Model Optimizer, which they need, is not installed.
    """
    try:
        model_optimizer.check_installed()
    except MissingExtraError as error:
        raise WrongUsageError(f"{error}, or export FP32 graphs alone with --no-fp16") from error
    return CONVERTERS
