"""Key maps: the names of another implementation's tensors, and the names that they get here.

A key map is a TOML file with one table of renames for each checkpoint file. It is shipped with the package or
written by the user. Works on names and shapes only, and does not import torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from ccr_deploy.core.records import Record, read_toml
from ccr_deploy.core.suggestions import choose_from
from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.family import is_cell_parameter, parameter_prefix

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Gate = Literal["input", "forget", "cell", "output"]
GATES: tuple[Gate, ...] = ("input", "forget", "cell", "output")
"""The order of the gates in the convolutions of a cell here."""

_NUMBER = re.compile(r"\d+")


class KeyMap(Record, frozen=True):
    """The names of another implementation's tensors.

    `renames` has one table for each file, in the order in which the files are given: the name there, then the
    name here. A name that ends with a dot, or an empty one, is a prefix. `gates` is the order of the gates in
    the convolutions of a cell. `ignore` lists names and prefixes that are not reported as left over.
    """

    schema_version: Literal[1]
    description: str
    renames: Annotated[dict[str, dict[str, str]], Meta(min_length=1)]
    gates: tuple[Gate, Gate, Gate, Gate] = ("input", "forget", "cell", "output")
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.gates)) != len(GATES):
            raise ValueError(f"gates is {', '.join(self.gates)}: give each of {', '.join(GATES)} once")
        for file, table in self.renames.items():
            for there, here in table.items():
                if _is_prefix(there) != _is_prefix(here):
                    raise ValueError(
                        f"renames.{file} has a name and a prefix ({there!r} and {here!r}): "
                        "a prefix ends with a dot or is empty, and becomes a prefix"
                    )


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of a checkpoint file, without its values."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def width(self, axis: int) -> int:
        """Return the number of channels on an axis, 0 or 1.

        Raises:
            CheckpointError: if the tensor has no such axis.
        """
        if len(self.shape) <= axis or 0 in self.shape:
            raise CheckpointError(
                f"{self.path}: {self.name} has the shape {list(self.shape)}, which is no weight of a layer: "
                "check the key map"
            )
        return self.shape[axis]


@dataclass(frozen=True)
class RenamedTensors:
    """The result of a key map: a tensor for each name here, and the tensors that have none."""

    sources: Mapping[str, SourceTensor]
    left_over: tuple[SourceTensor, ...]


def find_key_map(name_or_path: str) -> Path:
    """Return the file of a key map that is shipped with the package, by name, or the path of a TOML file.

    Raises:
        WrongUsageError: if there is no key map with this name.
    """
    shipped = key_map_files()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    raise WrongUsageError(
        f"unknown key map {name_or_path!r}: {choose_from(name_or_path, sorted(shipped))}, "
        "or give the path of a TOML file"
    )


def read_key_map(path: Path) -> KeyMap:
    """Read a key map.

    Raises:
        WrongUsageError: if the file does not exist, is not TOML, or a field is missing, unknown or wrong.
    """
    return read_toml(KeyMap, path, error=WrongUsageError)


def key_map_files() -> dict[str, Path]:
    """Return the files of the key maps that are shipped with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "key_maps").glob("*.toml"))}


def rename(
    key_map: KeyMap, path: Path, files: Sequence[tuple[Path, Mapping[str, tuple[int, ...]]]]
) -> RenamedTensors:
    """Apply a key map to the tensors of checkpoint files.

    Args:
        key_map: the key map.
        path: its file, for messages.
        files: for each table of renames, in its order: a file, and the shapes of its tensors by name.

    Raises:
        WrongUsageError: if the number of files is another one, a name of the map matches no tensor, two match
            the same tensor, or two tensors get the same name.
        CheckpointError: if the encoder there has biases or a further cell.
    """
    names = ", ".join(key_map.renames)
    if len(files) != len(key_map.renames):
        raise WrongUsageError(
            f"{path}: renames tensors of {len(key_map.renames)} files ({names}), {len(files)} given: "
            "give one file for each, in this order"
        )
    if len({file for file, _ in files}) < len(files):
        raise WrongUsageError(f"{files[0][0]}: given twice: give one file for each of {names}, in this order")
    sources: dict[str, SourceTensor] = {}
    left_over: list[SourceTensor] = []
    for (table, renames), (file, shapes) in zip(key_map.renames.items(), files, strict=True):
        entries = [*renames, *key_map.ignore]
        matches = {name: [entry for entry in entries if _matches(entry, name)] for name in shapes}
        used = {entry for found in matches.values() for entry in found}
        if unused := [entry for entry in renames if entry not in used]:
            what = "no tensor whose name begins with" if _is_prefix(unused[0]) else "no tensor"
            raise WrongUsageError(
                f"{file}: has {what} {unused[0]}, which {path} renames (renames.{table}): "
                f"check the names, and the order of the files ({names})"
            )
        for name, found in matches.items():
            source = SourceTensor(file, name, tuple(shapes[name]))
            if len(found) > 1:
                raise WrongUsageError(
                    f"{path}: {found[0]!r} and {found[1]!r} (renames.{table}, ignore) both match the tensor "
                    f"{name} of {file}: leave only one"
                )
            if not found:
                left_over.append(source)
            elif found[0] in renames:
                _add(sources, renames[found[0]] + name.removeprefix(found[0]), source, path)
        _check_structure(sources, left_over, file, shapes)
    return RenamedTensors(sources, tuple(left_over))


def left_over_lines(left_over: Sequence[SourceTensor]) -> list[str]:
    """Return one line for each file that has tensors without a name here."""
    lines = []
    for path, tensors in groupby(left_over, lambda tensor: tensor.path):
        names = [tensor.name for tensor in tensors]
        more = ", …" if len(names) > 10 else ""
        lines.append(f"{path}: left over: {len(names)} tensors ({', '.join(names[:10])}{more})")
    return lines


def _is_prefix(name: str) -> bool:
    return not name or name.endswith(".")


def _matches(entry: str, name: str) -> bool:
    return name.startswith(entry) if _is_prefix(entry) else name == entry


def _add(sources: dict[str, SourceTensor], here: str, source: SourceTensor, path: Path) -> None:
    if here in sources:
        first = sources[here]
        raise WrongUsageError(
            f"{path}: {first.name} of {first.path} and {source.name} of {source.path} both become {here}: "
            "leave only one"
        )
    sources[here] = source


def _check_structure(
    sources: Mapping[str, SourceTensor],
    left_over: Sequence[SourceTensor],
    file: Path,
    shapes: Collection[str],
) -> None:
    """Refuse tensors of the encoder in `file` that would change its codes but have no name here."""
    prefix = parameter_prefix("encoder")
    encoder = {
        here: source.name
        for here, source in sources.items()
        if source.path == file and here.startswith(prefix)
    }
    biases = [
        bias
        for name in encoder.values()
        if name.endswith("weight") and (bias := f"{name.removesuffix('weight')}bias") in shapes
    ]
    if biases:
        raise CheckpointError(
            f"{file}: its encoder has {len(biases)} biases ({', '.join(biases[:3])}), and encoders here have "
            "none: train it without biases"
        )
    cells = {_NUMBER.sub("#", name) for here, name in encoder.items() if is_cell_parameter(here)}
    further = [
        tensor.name for tensor in left_over if tensor.path == file and _NUMBER.sub("#", tensor.name) in cells
    ]
    if further:
        raise CheckpointError(
            f"{file}: its encoder has a further cell ({further[0]}), and encoders here have three: give an "
            "encoder with three cells, or list the name in ignore if it belongs to another network"
        )
