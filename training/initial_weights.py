"""Weights that a training starts from: of an encoder, of a compressor, of torchvision's ResNet-18."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.checkpoint_file import read_checkpoint, tensors_of
from ccr_deploy.models.mapped_checkpoint import load_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from ccr_deploy.models.config import EncoderConfig
    from ccr_deploy.models.key_map import SourceTensor

TORCHVISION = "torchvision"
"""Instead of a file: the ImageNet weights that torchvision downloads."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights by name, and where they are from."""

    source: str
    state_dict: Mapping[str, Tensor] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Source and digest in one text; a resumed training must have the same."""
        digest = hashlib.sha256()
        for name in sorted(self.state_dict):
            digest.update(name.encode())
            digest.update(
                self.state_dict[name]
                .detach()
                .cpu()
                .contiguous()
                .reshape(-1)
                .view(torch.uint8)
                .numpy()
                .tobytes()
            )
        return f"{self.source} {digest.hexdigest()[:16]}"


@dataclass(frozen=True)
class EncoderWeights(InitialWeights):
    """The weights of an encoder without the prefix ``encoder.``, and its widths."""

    config: EncoderConfig
    left_over: tuple[SourceTensor, ...] = ()


def encoder_weights(paths: Sequence[Path], key_map: str | None = None) -> EncoderWeights:
    """Read the weights of an encoder.

    Args:
        paths: a compressor or checkpoint, or the files of another project.
        key_map: name or file of the map from that project's names; None for this project's files.

    Raises:
        WrongUsageError: if a file does not exist, or the map does not fit the files.
        CheckpointError: if a file is damaged or is no encoder.
    """
    found = load_encoder(paths, key_map)
    names = ", ".join(path.name for path in paths)
    return EncoderWeights(names, found.state_dict, found.config, found.left_over)


def resnet_weights(source: str) -> InitialWeights:
    """Read weights of a ResNet-18 with torchvision's names.

    Args:
        source: a file that `torch.save` wrote, or ``torchvision`` for its ImageNet weights, which it
            downloads once (or finds in ``$TORCH_HOME``).

    Raises:
        WrongUsageError: if the file does not exist, or the download fails.
        CheckpointError: if the file is damaged or has no tensors.
    """
    if source == TORCHVISION:
        from torchvision.models import ResNet18_Weights

        weights = ResNet18_Weights.IMAGENET1K_V1
        try:
            return InitialWeights(str(weights), weights.get_state_dict(progress=False, check_hash=True))
        except (OSError, RuntimeError) as error:  # RuntimeError: the download has another hash
            raise WrongUsageError(
                f"torchvision's ResNet-18 weights cannot be downloaded ({error}): download "
                f"{weights.url} elsewhere and give the file"
            ) from error
    path = Path(source)
    content = read_checkpoint(path)
    return InitialWeights(path.name, tensors_of(content.get("state_dict", content), path))


def load_residual_stages(classifier: nn.Module, weights: InitialWeights) -> list[str]:
    """Load the layers that a classifier shares with torchvision's ResNet-18.

    A truncated classifier keeps the residual stages after its cut. The last layer is taken only if it has as
    many classes.

    Args:
        classifier: a truncated or whole ResNet-18; changed in place.
        weights: weights of a whole ResNet-18.

    Returns:
        The names of the tensors that were loaded.

    Raises:
        WrongUsageError: if a tensor is missing or has another shape.
    """
    own = classifier.state_dict()
    wanted = [name for name in own if name.partition(".")[0] in _shared_layers(own)]
    if missing := [name for name in wanted if name not in weights.state_dict]:
        raise WrongUsageError(f"{weights.source}: not a ResNet-18: it has no {missing[0]}")
    for name in wanted:
        found, expected = list(weights.state_dict[name].shape), list(own[name].shape)
        if found != expected:
            raise WrongUsageError(
                f"{weights.source}: {name} is {found} instead of {expected}: a ResNet-18 of other widths"
            )
    head = ["fc.weight", "fc.bias"]
    if all(name in weights.state_dict and weights.state_dict[name].shape == own[name].shape for name in head):
        wanted += head
    classifier.load_state_dict({**own, **{name: weights.state_dict[name] for name in wanted}})
    return wanted


def _shared_layers(own: Mapping[str, Tensor]) -> set[str]:
    layers = {name.partition(".")[0] for name in own}
    return {layer for layer in layers if layer in {"conv1", "bn1"} or layer.startswith("layer")}
