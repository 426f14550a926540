"""Save and load compressors: an encoder with the decoder that it was pretrained with, before any classifier.

The format is a dictionary, written by `torch.save`:

=================  =====================================================================
``format``         ``"ccr-deploy compressor"``
``version``        1
``config``         `EncoderConfig` as a dictionary
``decoder``        `DecoderConfig` as a dictionary
``iterations``     every T that the compressor was trained with
``preprocessing``  `Preprocessing` as a dictionary
``metrics``        metrics of the training, by name
``state_dict``     parameters, with the prefixes ``encoder.`` and ``decoder.``
=================  =====================================================================

The parameters of the encoder have the names that they have in a checkpoint of a whole chain, see
`ccr_deploy.models.checkpoint`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from msgspec import structs
from torch import Tensor, nn

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.records import Record, to_builtins
from ccr_deploy.errors import CheckpointError
from ccr_deploy.models.checkpoint_file import (
    check_fit,
    check_version,
    read_checkpoint,
    read_description,
    tensors_of,
    write_checkpoint,
)
from ccr_deploy.models.config import DecoderConfig, EncoderConfig
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.iterations import checked_iterations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "ccr-deploy compressor"
VERSION = 1
REMEDY = "pretrain it again"


@dataclass(frozen=True)
class CompressorCheckpoint:
    """A compressor with its weights.

    Attributes:
        config: the widths of the encoder.
        decoder: the widths of the decoder.
        iterations: every T that it was trained with; may be empty.
        preprocessing: how image files become the encoder's input.
        state_dict: parameters of encoder and decoder, with the prefixes ``encoder.`` and ``decoder.``.
        metrics: metrics of the training, by name.

    Raises:
        CheckpointError: if a metric is not finite.
    """

    config: EncoderConfig
    decoder: DecoderConfig
    iterations: tuple[int, ...]
    preprocessing: Preprocessing
    state_dict: Mapping[str, Tensor] = field(repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            raise CheckpointError(f"metric {wrong[0]} is {self.metrics[wrong[0]]}, not a finite number")


class _Description(Record, frozen=True):
    """All fields of a compressor except the weights."""

    config: EncoderConfig
    decoder: DecoderConfig
    iterations: tuple[int, ...]
    preprocessing: Preprocessing
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        checked_iterations(self.iterations)


def save_compressor(compressor: CompressorCheckpoint, path: Path) -> None:
    """Write a compressor; the file is replaced in one step."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        **{name: to_builtins(getattr(compressor, name)) for name in _Description.__struct_fields__},
        "state_dict": {
            name: tensor.detach().cpu().contiguous() for name, tensor in compressor.state_dict.items()
        },
    }
    write_checkpoint(content, path)


def load_compressor(path: Path) -> CompressorCheckpoint:
    """Read a compressor that `save_compressor` wrote.

    Raises:
        CheckpointError: if the file is damaged, is not a compressor, or does not fit its configuration.
        WrongUsageError: if the file does not exist.
    """
    content = read_checkpoint(path)
    if not is_compressor(content):
        raise CheckpointError(f"{path}: not a compressor: give a file that python -m training pretrain wrote")
    return compressor_of(content, path)


def is_compressor(content: Mapping[object, object]) -> bool:
    """Return whether a checkpoint's dictionary has the format of a compressor."""
    return content.get("format") == FORMAT


def compressor_of(content: Mapping[object, object], path: Path) -> CompressorCheckpoint:
    """Return the compressor in the dictionary of a file, after checking it.

    Args:
        content: what `read_checkpoint` returned.
        path: the file, for messages.

    Raises:
        CheckpointError: if a field or a tensor is missing, unknown or wrong.
    """
    check_version(content, path, VERSION, REMEDY)
    described = {name: value for name, value in content.items() if name in _Description.__struct_fields__}
    description = read_description(_Description, described, path, REMEDY)
    tensors = tensors_of(content.get("state_dict"), path)
    with torch.device("meta"):  # without allocating memory for weights
        network = nn.ModuleDict(
            {
                "encoder": RecurrentEncoder(description.config),
                "decoder": Decoder(description.decoder, description.config.code_channels),
            }
        )
    check_fit(tensors, network.state_dict(), path, REMEDY)
    return CompressorCheckpoint(state_dict=tensors, **structs.asdict(description))
