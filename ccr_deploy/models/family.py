"""The adapter of the model family: names in state dicts, graphs and calibration tables. Imports no torch.

Export, quantization and checkpoints use this module and define no such names. To deploy another
recurrent encoder, adapt this module, the network (`ccr_deploy.models.encoder`) and its unrolling
(`ccr_deploy.export.unroll`).

A node of a graph is named after its module: ``cell2/t3/hidden_state`` is the hidden state of the second cell
in the third iteration. A tensor is named after its node. The name without the iteration is a *signal*
(``cell2/hidden_state``), or for a convolution its layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ccr_deploy.core.stages import Stage

MARKER = "encoder.stem.weight"
"""A parameter of every model; text before it in a state dict is the prefix of a wrapper (``model.``)."""

HEAD = "classifier.fc.weight"
"""The parameter that has one row for each class."""

BINARIZER = "encoder.binarizer.conv.weight"
"""The parameter that has one row for each code channel."""

SAMPLING = "classifier.sampling.conv1.weight"
"""The parameter that has one row for each channel of the first residual stage's input."""

STEM = "stem"
"""The first convolution. Between it and the first input convolution is no other operator."""

HIGH_PRECISION_LAYERS = (STEM, "binarizer")
"""Layers that are not quantized by default.

They take 0.8 % of the operations of the paper's encoder, but cause more than a third of the demo's flipped
bits if they are quantized.
"""

UINT8_IO = ("normalise", "pack", "unpack")
"""The modules for uint8 I/O. They stay in FP32, where they are exact; their cost is negligible."""

_CONTAINERS = frozenset({"network", "gates", "batched"})
"""Modules that only contain other modules; omitted in names."""

_ITERATION = re.compile(r"/t(\d+)(?=/|$)")
_HIDDEN_STATE = re.compile(r"cell(?P<cell>\d+)/t(?P<t>[1-9]\d*)/hidden_state")
BINARIZER_WEIGHT = "binarizer/weight"
"""The weight of the binarizer's convolution in an encoder's graph."""
FIRST_INPUT_CONV = "cell1/input_conv"
"""The first cell's input convolution. All schedules but ``plain`` compute it and the stem as one."""
_RESIDUAL_STAGE = re.compile(r"(layer\d)/")
_CELL_PARAMETER = re.compile(r"encoder\.cells\.\d+\.(input|hidden)_conv\.weight")
_CELL = re.compile(r"cells\.(\d+)")


def parameter_prefix(stage: Stage) -> str:
    """Return the prefix of a stage's parameters in its chain's state dict; empty for a baseline."""
    return "" if stage == "baseline" else f"{stage}."


def is_cell_parameter(name: str) -> bool:
    """Return whether a parameter is the weight of a cell's convolution, so has one block for each gate."""
    return _CELL_PARAMETER.fullmatch(name) is not None


def hidden_conv_parameter(cell: int) -> str:
    """Return the name of the weight of a cell's hidden convolution; the first cell is 0."""
    return f"encoder.cells.{cell}.hidden_conv.weight"


def residual_stage_parameter(stage: int) -> str:
    """Return the name of the first weight of a classifier's residual stage, 2 to 4."""
    return f"classifier.layer{stage}.0.conv1.weight"


def node_name(module: str) -> str:
    """Return the name of a module's nodes: its path, without modules that only contain others."""
    return "/".join(part for part in module.split(".") if part not in _CONTAINERS)


def name_in_graphs(module: str) -> str:
    """Return the signal of a network's module: that of ``cells.0.input_conv`` is ``cell1/input_conv``."""
    path = _CELL.sub(lambda match: f"cell{int(match[1]) + 1}", module)
    return node_name("binarizer" if path == "binarizer.conv" else path)


def signal_of(name: str) -> str:
    """Return a node's or tensor's name without the iteration."""
    return _ITERATION.sub("", name)


def iteration_of(name: str) -> int | None:
    """Return the iteration in a node's or tensor's name; None if it has none."""
    match = _ITERATION.search(name)
    return int(match.group(1)) if match else None


def layer_of(node: str) -> str:
    """Return the layer that a convolution or residual addition belongs to.

    One of ``stem``, ``cell1/hidden_conv``, ``cell2/input_conv``, …, ``binarizer``, ``sampling/conv1``, …,
    ``layer2``, ``layer3``, ``layer4``: a residual stage counts as one, and so do the stem and the first input
    convolution.
    """
    if stage := _RESIDUAL_STAGE.match(node):
        return stage.group(1)
    signal = signal_of(node)
    return STEM if signal == FIRST_INPUT_CONV else signal


def is_in_residual_stage(node: str) -> bool:
    """Return whether a node belongs to a residual stage of a classifier."""
    return _RESIDUAL_STAGE.match(node) is not None


def is_uint8_io(node: str) -> bool:
    """Return whether a node belongs to the modules for uint8 I/O."""
    return node.partition("/")[0] in UINT8_IO


def quantized_operators(stage: Stage) -> list[str] | None:
    """Return the operators that INT8 quantizes in a stage; None for Model Optimizer's default.

    In an encoder, quantizing also Mul and Add of the gates would give 261 instead of 66 Q/DQ pairs without
    benefit.
    """
    return ["Conv"] if stage == "encoder" else None


def last_hidden_states(names: Iterable[str]) -> dict[int, str]:
    """Return the names of the last cell's hidden states, by iteration; the binarizer reads the last one."""
    found: dict[int, dict[int, str]] = {}
    for name in names:
        if match := _HIDDEN_STATE.fullmatch(name):
            found.setdefault(int(match["cell"]), {})[int(match["t"])] = name
    return found[max(found)] if found else {}
