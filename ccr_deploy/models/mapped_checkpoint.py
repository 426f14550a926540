"""Load encoders and chains from state dicts of other implementations, by a key map.

`load_encoder` also reads the project's own files, so that a classifier can be trained on any encoder.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.models.chain import CcrChain
from ccr_deploy.models.checkpoint import FORMAT, Checkpoint, checkpoint_of
from ccr_deploy.models.checkpoint_file import (
    check_declared_sizes,
    check_fit,
    first_names,
    read_checkpoint,
    tensors_of,
    unwrapped,
)
from ccr_deploy.models.compressor_file import compressor_of, is_compressor
from ccr_deploy.models.config import ClassifierConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.family import MARKER, is_cell_parameter, parameter_prefix
from ccr_deploy.models.key_map import GATES, KeyMap, SourceTensor, find_key_map, read_key_map, rename
from ccr_deploy.models.presets import default_preprocessing
from ccr_deploy.models.widths import classifier_config, classifier_cut, encoder_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_ENCODER = parameter_prefix("encoder")
_CLASSIFIER = parameter_prefix("classifier")
_OWN_NAMES = KeyMap(
    schema_version=1,
    description="An encoder under the names that it has here",
    renames={"encoder": {_ENCODER: _ENCODER}},
)


class LoadedEncoder(NamedTuple):
    """An encoder that was read from checkpoint files.

    Attributes:
        config: its widths.
        state_dict: the parameters of `RecurrentEncoder`.
        left_over: tensors of the files that were not used.
    """

    config: EncoderConfig
    state_dict: dict[str, Tensor]
    left_over: tuple[SourceTensor, ...]


class LoadedChain(NamedTuple):
    """A chain that was read from checkpoint files, and the tensors of the files that were not used."""

    checkpoint: Checkpoint
    left_over: tuple[SourceTensor, ...]


def load_encoder(paths: Sequence[Path], key_map: str | None = None) -> LoadedEncoder:
    """Read an encoder; its widths are those of its tensors.

    Args:
        paths: the files, in the order of the key map's tables. Without a key map one file: a compressor or a
            checkpoint of this project, or a state dict with the names of this project.
        key_map: name or path of the key map, see `ccr_deploy.models.key_map.find_key_map`.

    Raises:
        WrongUsageError: if a file does not exist, or the key map is wrong or does not fit the files.
        CheckpointError: if a file is damaged or its encoder has another structure.
    """
    if key_map is None:
        return _own_encoder(paths)
    map_path = find_key_map(key_map)
    mapped = _read_mapped(paths, read_key_map(map_path), map_path)
    return LoadedEncoder(mapped.encoder, _encoder_part(mapped.state_dict), mapped.left_over)


def load_mapped_checkpoint(
    paths: Sequence[Path], key_map: str, trained_iterations: tuple[int, ...] | None
) -> LoadedChain:
    """Read a chain of encoder and truncated classifier; widths, cut and classes are those of its tensors.

    Args:
        paths: the files, in the order of the key map's tables.
        key_map: name or path of the key map, see `ccr_deploy.models.key_map.find_key_map`.
        trained_iterations: every T that the chain was trained with; the largest becomes the T of the
            configuration.

    Raises:
        WrongUsageError: if a file does not exist, the key map is wrong, does not fit the files or gives no
            classifier, or `trained_iterations` is None.
        CheckpointError: if a file is damaged or its networks have another structure.
    """
    map_path = find_key_map(key_map)
    mapped = _read_mapped(paths, read_key_map(map_path), map_path)
    if mapped.classifier is None:
        files = " ".join(f"--encoder-from {shlex.quote(str(path))}" for path in paths)
        raise WrongUsageError(
            f"{map_path}: gives an encoder without a classifier: fine-tune a classifier first, with "
            f"python -m training finetune {files} --key-map {shlex.quote(key_map)}"
        )
    if not trained_iterations:
        raise WrongUsageError(
            "--key-map needs every T that the chain was trained with: give --trained-iterations"
        )
    config = ModelConfig(
        iterations=max(trained_iterations), encoder=mapped.encoder, classifier=mapped.classifier
    )
    checkpoint = Checkpoint(config, default_preprocessing(config), mapped.state_dict, trained_iterations)
    return LoadedChain(checkpoint, mapped.left_over)


@dataclass(frozen=True)
class _MappedTensors:
    """Tensors under the names that they have here, complete and checked."""

    encoder: EncoderConfig
    classifier: ClassifierConfig | None
    state_dict: dict[str, Tensor]
    left_over: tuple[SourceTensor, ...]


def _own_encoder(paths: Sequence[Path]) -> LoadedEncoder:
    if len(paths) != 1:
        raise WrongUsageError(f"an encoder from {len(paths)} files needs a key map: give --key-map")
    (path,) = paths
    content = read_checkpoint(path)
    if is_compressor(content):
        compressor = compressor_of(content, path)
        return LoadedEncoder(compressor.config, _encoder_part(compressor.state_dict), ())
    if content.get("format") == FORMAT:
        checkpoint = checkpoint_of(content, path)
        return LoadedEncoder(checkpoint.config.encoder, _encoder_part(checkpoint.state_dict), ())
    tensors = unwrapped(content.get("state_dict", content), path)
    if MARKER not in tensors:
        raise WrongUsageError(f"{path}: has no {MARKER}: give --key-map if its tensors have other names")
    mapped = _mapped([(path, tensors)], _OWN_NAMES, path)
    return LoadedEncoder(mapped.encoder, _encoder_part(mapped.state_dict), mapped.left_over)


def _encoder_part(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(_ENCODER): tensor
        for name, tensor in state_dict.items()
        if name.startswith(_ENCODER)
    }


def _read_mapped(paths: Sequence[Path], key_map: KeyMap, map_path: Path) -> _MappedTensors:
    contents = [(path, read_checkpoint(path)) for path in paths]
    files = [(path, tensors_of(content.get("state_dict", content), path)) for path, content in contents]
    return _mapped(files, key_map, map_path)


def _mapped(
    files: Sequence[tuple[Path, dict[str, Tensor]]], key_map: KeyMap, map_path: Path
) -> _MappedTensors:
    shapes = [(path, {name: tuple(tensor.shape) for name, tensor in found.items()}) for path, found in files]
    renamed = rename(key_map, map_path, shapes)
    sources, tensors = renamed.sources, dict(files)
    _check_names(sources, map_path)
    for path in tensors:
        check_declared_sizes(
            {source.name: tensors[path][source.name] for source in sources.values() if source.path == path},
            path,
        )
    encoder = encoder_config(sources)
    classifier = classifier_config(sources) if _has_classifier(sources) else None
    expected = _empty(ModelConfig(encoder=encoder, classifier=classifier or ClassifierConfig(cut="layer1")))
    for path, found in tensors.items():
        here = {source.name: name for name, source in sources.items() if source.path == path}
        check_fit(
            {name: found[name] for name in here},
            {name: expected[here[name]] for name in here},
            path,
            f"its layers differ from those here, whose hidden convolutions are 1x1, or {map_path} is wrong",
        )
    state_dict = {name: tensors[source.path][source.name] for name, source in sources.items()}
    return _MappedTensors(encoder, classifier, _in_order_of_gates(state_dict, key_map), renamed.left_over)


def _check_names(sources: Mapping[str, SourceTensor], map_path: Path) -> None:
    """Check that a key map gives names that a model has, and all of a model.

    Raises:
        WrongUsageError: if it does not.
    """
    # The first cut removes the least, so its model has all names.
    known = _empty(ModelConfig(classifier=ClassifierConfig(cut="layer1")))
    if unknown := [name for name in sources if name not in known]:
        source = sources[unknown[0]]
        raise WrongUsageError(
            f"{map_path}: {source.name} of {source.path} becomes {unknown[0]}, which is no tensor of a model "
            "here (encoders have three cells and no biases): correct the name"
        )
    cut = classifier_cut(sources)
    needed: Iterable[str] = _empty(ModelConfig(classifier=ClassifierConfig(cut=cut)))
    if not _has_classifier(sources):
        needed = (name for name in needed if name.startswith(_ENCODER))
    if missing := [name for name in needed if name not in sources]:
        raise WrongUsageError(
            f"{map_path}: gives no tensor for {len(missing)} of the model's names ({first_names(missing)}): "
            "add them; encoders here have three cells"
        )


def _has_classifier(names: Iterable[str]) -> bool:
    return any(name.startswith(_CLASSIFIER) for name in names)


def _empty(config: ModelConfig) -> dict[str, Tensor]:
    with torch.device("meta"):  # without allocating memory for weights
        return CcrChain(config).state_dict()


def _in_order_of_gates(state_dict: dict[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """Return the tensors with the gates of each cell's convolutions in the order that they have here."""
    order = [key_map.gates.index(gate) for gate in GATES]
    if order == sorted(order):
        return state_dict
    return {
        name: torch.cat([tensor.chunk(len(GATES))[gate] for gate in order])
        if is_cell_parameter(name)
        else tensor
        for name, tensor in state_dict.items()
    }
