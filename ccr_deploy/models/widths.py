"""Find the configurations of encoder and classifier from the shapes of tensors. Does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import Record, convert
from ccr_deploy.errors import CheckpointError
from ccr_deploy.models.config import CUT_STAGE, ClassifierConfig, Cut, EncoderConfig
from ccr_deploy.models.family import (
    BINARIZER,
    HEAD,
    MARKER,
    SAMPLING,
    hidden_conv_parameter,
    residual_stage_parameter,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ccr_deploy.models.key_map import SourceTensor

_Kind = TypeVar("_Kind", bound=Record)
_LAST_STAGE = 4


def encoder_config(tensors: Mapping[str, SourceTensor]) -> EncoderConfig:
    """Return the widths of an encoder.

    Args:
        tensors: the tensors by their names here, with all of the encoder.

    Raises:
        CheckpointError: if a tensor is no weight of a convolution, or a width is not allowed.
    """
    found = {
        "stem_channels": tensors[MARKER].width(0),
        # Not of the input convolution, whose first axis has four gates.
        "cell_channels": [tensors[hidden_conv_parameter(cell)].width(1) for cell in range(3)],
        "code_channels": tensors[BINARIZER].width(0),
    }
    return _checked(EncoderConfig, found, tensors[MARKER])


def classifier_cut(names: Collection[str]) -> Cut:
    """Return the cut that removes the residual stages before the first one that has tensors."""
    first = next(
        (stage for stage in range(2, _LAST_STAGE) if residual_stage_parameter(stage) in names), _LAST_STAGE
    )
    return next(cut for cut, removed in CUT_STAGE.items() if removed == first - 1)


def classifier_config(tensors: Mapping[str, SourceTensor]) -> ClassifierConfig:
    """Return the cut, the widths and the number of classes of a truncated classifier.

    Args:
        tensors: the tensors by their names here, with all of the classifier.

    Raises:
        CheckpointError: if a tensor is no weight of a layer, or a width is not allowed.
    """
    cut = classifier_cut(tensors)
    removed = CUT_STAGE[cut]
    # Only the last of the removed stages has a width: the classifier begins with that many channels.
    channels = list(ClassifierConfig(cut=cut).stage_channels)
    channels[removed - 1] = tensors[SAMPLING].width(0)
    for stage in range(removed + 1, _LAST_STAGE + 1):
        channels[stage - 1] = tensors[residual_stage_parameter(stage)].width(0)
    found = {"cut": cut, "classes": tensors[HEAD].width(0), "stage_channels": channels}
    return _checked(ClassifierConfig, found, tensors[HEAD])


def _checked(kind: type[_Kind], found: dict[str, Any], source: SourceTensor) -> _Kind:
    try:
        return convert(kind, found)
    except FieldError as error:
        raise CheckpointError(
            f"{source.path}: its shapes give no model: {error}: check the key map"
        ) from error
