"""Load and save checkpoints: the project's own format, bare state dicts and Lightning checkpoints.

The project's format is a dictionary, written by `torch.save`:

======================  ======================================================================
``format``              ``"ccr-deploy checkpoint"``
``version``             2
``config``              `ModelConfig` as a dictionary
``trained_iterations``  every T that the model was trained with; empty if untrained
``preprocessing``       `Preprocessing` as a dictionary
``class_names``         names in the order of the logits; empty if unknown
``metrics``             metrics of the training, by name
``state_dict``          the parameters and buffers of `CcrChain` or `BaselineChain`
======================  ======================================================================

Version 1 had no ``trained_iterations``.

Files are read by `ccr_deploy.models.checkpoint_file`, which refuses pickles that could run code or demand far
more memory than the file's size.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from msgspec import structs
from torch import Tensor

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.records import Record, to_builtins
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.chain import BaselineChain, CcrChain
from ccr_deploy.models.checkpoint_file import (
    check_fit,
    check_version,
    read_checkpoint,
    read_description,
    unwrapped,
    write_checkpoint,
)
from ccr_deploy.models.compressor_file import is_compressor
from ccr_deploy.models.config import ModelConfig
from ccr_deploy.models.family import HEAD, parameter_prefix
from ccr_deploy.models.iterations import checked_iterations, named_iterations
from ccr_deploy.models.presets import PRESETS, default_preprocessing, preset

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "ccr-deploy checkpoint"
VERSION = 2
REMEDY = "train it again, or save only its state dict and give --preset"


@dataclass(frozen=True)
class Checkpoint:
    """A model with its weights.

    Attributes:
        config: the architecture, and the T that the model runs with.
        preprocessing: how image files become the encoder's input.
        state_dict: parameters and buffers of `CcrChain` or `BaselineChain`.
        trained_iterations: every T that it was trained with; may differ from the configuration's T, see
            `ccr_deploy.export.exporter.export_bundle`.
        class_names: names in the order of the logits; empty if unknown.
        metrics: metrics of the training, by name.
    """

    config: ModelConfig
    preprocessing: Preprocessing
    state_dict: Mapping[str, Tensor] = field(repr=False)
    trained_iterations: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = self.config.classifier.classes
        if self.class_names and len(self.class_names) != classes:
            raise CheckpointError(f"{len(self.class_names)} class names for {classes} classes")
        if wrong := [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            raise CheckpointError(f"metric {wrong[0]} is {self.metrics[wrong[0]]}, not a finite number")
        try:
            checked_iterations(self.trained_iterations)
            self.preprocessing.check_covers(self.config.image_height, self.config.image_width)
        except ValueError as error:
            raise CheckpointError(str(error)) from error


class _Description(Record, frozen=True):
    """All fields of a checkpoint except the weights."""

    config: ModelConfig
    trained_iterations: tuple[int, ...]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        checked_iterations(self.trained_iterations)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in the project's own format; the file is replaced in one step."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        **{name: to_builtins(getattr(checkpoint, name)) for name in _Description.__struct_fields__},
        "state_dict": {
            name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state_dict.items()
        },
    }
    write_checkpoint(content, path)


def load_checkpoint(
    path: Path, preset_name: str | None = None, trained_iterations: tuple[int, ...] | None = None
) -> Checkpoint:
    """Read a checkpoint in the project's format, a Lightning checkpoint or a bare state dict.

    The project's format contains the configuration and the trained iterations. So does a Lightning checkpoint
    of the modules in `training`, in its hyperparameters. Any other state dict needs `preset_name`; the number
    of classes is taken from its last layer.

    Args:
        path: the file.
        preset_name: the preset of a bare state dict; ignored if the file has a configuration.
        trained_iterations: every T that a bare state dict was trained with; None for the preset's T. A single
            one becomes the T of the configuration.

    Raises:
        CheckpointError: if the file is damaged, is not a checkpoint, or does not fit its configuration.
        WrongUsageError: if the file does not exist, is a bare state dict and `preset_name` is None, or
            records other trained iterations.
    """
    return checkpoint_of(read_checkpoint(path), path, preset_name, trained_iterations)


def checkpoint_of(
    content: Mapping[Any, Any],
    path: Path,
    preset_name: str | None = None,
    trained_iterations: tuple[int, ...] | None = None,
) -> Checkpoint:
    """Return the checkpoint in the dictionary of a file; see `load_checkpoint`.

    Args:
        content: what `ccr_deploy.models.checkpoint_file.read_checkpoint` returned.
        path: the file, for messages.
        preset_name: the preset of a bare state dict; ignored if the file has a configuration.
        trained_iterations: every T that a bare state dict was trained with; None for the preset's T.

    Raises:
        CheckpointError: if it is not a checkpoint, or does not fit its configuration.
        WrongUsageError: if it is a bare state dict and `preset_name` is None, or it records other trained
            iterations.
    """
    if is_compressor(content):
        raise WrongUsageError(
            f"{path}: a compressor without a classifier: fine-tune a classifier first, with "
            f"python -m training finetune --encoder-from {shlex.quote(str(path))}"
        )
    if content.get("format") == FORMAT:
        check_version(content, path, VERSION, REMEDY)
        described: object = {
            name: value for name, value in content.items() if name in _Description.__struct_fields__
        }
        state_dict = content.get("state_dict", {})
    else:
        # Lightning stores the arguments of its module under this name; other trainers store none.
        hyper_parameters = content.get("hyper_parameters")
        described = hyper_parameters.get("checkpoint") if isinstance(hyper_parameters, Mapping) else None
        state_dict = content.get("state_dict", content)
    state_dict = unwrapped(state_dict, path)
    # An empty mapping counts as another trainer's: it describes nothing.
    if isinstance(described, Mapping) and described:
        checkpoint = _described(described, state_dict, path)
        _check_same_iterations(checkpoint.trained_iterations, trained_iterations, path)
    elif preset_name is not None:
        config = _with_classes_of(preset(preset_name), state_dict)
        trained = (config.iterations,) if trained_iterations is None else trained_iterations
        if len(trained) == 1:  # the only T with known accuracy, so the one to run with
            config = structs.replace(config, iterations=trained[0])
        checkpoint = Checkpoint(config, default_preprocessing(config), state_dict, trained)
    else:
        raise WrongUsageError(
            f"{path}: a state dict without a configuration: give its model with --preset "
            f"({choose_from('', PRESETS)}), or --key-map if its tensors have other names"
        )
    _check_fit(checkpoint, path)
    return checkpoint


def build_model(checkpoint: Checkpoint) -> CcrChain | BaselineChain:
    """Return the checkpoint's network with its weights, in evaluation mode."""
    model = _empty_model(checkpoint.config, checkpoint.preprocessing)
    model.load_state_dict(dict(checkpoint.state_dict))
    return model.eval()


def untrained_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """Return a checkpoint with PyTorch's default initialisation, to measure speed before training."""
    preprocessing = default_preprocessing(config)
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers as they were
        torch.manual_seed(seed)
        model = _empty_model(config, preprocessing)
    return Checkpoint(config, preprocessing, model.state_dict(), trained_iterations=())


def encoder_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the encoder's tensors.

    Codes of encoders with different digests are incompatible, so the digest is part of the code contract.
    """
    prefix = parameter_prefix("encoder")
    return weights_digest({name: state_dict[name] for name in state_dict if name.startswith(prefix)})


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors in float32, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())  # little-endian on every machine
    return digest.hexdigest()


def _empty_model(config: ModelConfig, preprocessing: Preprocessing) -> CcrChain | BaselineChain:
    return BaselineChain(config, preprocessing) if config.is_baseline else CcrChain(config)


def _described(content: Mapping[Any, Any], state_dict: dict[str, Tensor], path: Path) -> Checkpoint:
    description = read_description(_Description, content, path, REMEDY)
    try:
        return Checkpoint(state_dict=state_dict, **structs.asdict(description))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}: {REMEDY}") from error


def _check_same_iterations(recorded: tuple[int, ...], given: tuple[int, ...] | None, path: Path) -> None:
    if given is not None and set(given) != set(recorded):
        raise WrongUsageError(
            f"{path}: was trained with {named_iterations(recorded)}, as the file records, not with "
            f"{named_iterations(given)}: omit --trained-iterations"
        )


def _with_classes_of(config: ModelConfig, state_dict: Mapping[str, Tensor]) -> ModelConfig:
    head = state_dict.get(HEAD)
    if head is None or head.ndim != 2 or len(head) == config.classifier.classes:
        return config
    classifier = structs.replace(config.classifier, classes=len(head))
    return structs.replace(config, classifier=classifier)


def _check_fit(checkpoint: Checkpoint, path: Path) -> None:
    with torch.device("meta"):  # without allocating memory for weights
        expected = _empty_model(checkpoint.config, checkpoint.preprocessing).state_dict()
    check_fit(checkpoint.state_dict, expected, path, "check --preset")
