"""What the models are made of, by name: in state dicts, graphs and calibration tables. Imports no torch.

Export, quantization, checkpoints and descriptions know the networks by what is here, and by two modules that
need torch: `ccr_deploy.models.encoder` is the recurrent encoder, `ccr_deploy.export.unroll` makes it
feed-forward, schedule by schedule.

A graph's node is called after the module that it came from, ``cell2/t3/hidden_state`` for the second cell's
third iteration, and a tensor after its node. Without the iteration the name is the *signal's*,
``cell2/hidden_state``, or for a convolution the layer's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_deploy.core.stages import Stage

LANDMARK = "encoder.stem.weight"
"""A parameter that every model has; what stands before it is a wrapper's prefix (``model.``)."""

HEAD = "classifier.fc.weight"
"""The parameter with a row for each class."""

HIGH_PRECISION_LAYERS = ("stem", "binarizer")
"""0.3 % of the paper's encoder's work; quantized, they cause more than a third of the demo's flipped bits."""

UINT8_IO = ("normalise", "pack", "unpack")
"""The modules that take and give bytes. They stay in FP32: they are exact there, and cost next to nothing."""

_CONTAINERS = frozenset({"network", "gates", "batched"})
"""Modules that only hold others; in a name they say nothing and are dropped."""

_ITERATION = re.compile(r"/t(\d+)(?=/|$)")
_RESIDUAL_STAGE = re.compile(r"(layer\d)/")


def parameter_prefix(stage: Stage) -> str:
    """Return what a chain's state dict puts before a stage's parameters; a baseline is a chain of its own."""
    return "" if stage == "baseline" else f"{stage}."


def node_name(module: str) -> str:
    """Return what a module's nodes are called: its path without what only holds others."""
    return "/".join(part for part in module.split(".") if part not in _CONTAINERS)


def signal_of(name: str) -> str:
    """Return a node's or tensor's name without the iteration."""
    return _ITERATION.sub("", name)


def iteration_of(name: str) -> int | None:
    """Return the iteration in a name; None if it belongs to none."""
    match = _ITERATION.search(name)
    return int(match.group(1)) if match else None


def layer_of(node: str) -> str:
    """Return the layer that a convolution or residual addition belongs to.

    One of ``stem``, ``cell1/input_conv``, ``cell1/hidden_conv``, …, ``binarizer``, ``sampling/conv1``, …,
    ``layer2``, ``layer3``, ``layer4``: a residual stage counts as one.
    """
    stage = _RESIDUAL_STAGE.match(node)
    return stage.group(1) if stage else signal_of(node)


def is_in_residual_stage(node: str) -> bool:
    """Whether a node belongs to a residual stage of a classifier."""
    return _RESIDUAL_STAGE.match(node) is not None


def is_uint8_io(node: str) -> bool:
    """Whether a node belongs to the modules that take and give bytes."""
    return node.partition("/")[0] in UINT8_IO


def quantized_operators(stage: Stage) -> list[str] | None:
    """Return the operators that INT8 quantizes in a stage; None for those that Model Optimizer chooses.

    In an encoder quantizing the gates' Mul and Add would multiply the Q/DQ pairs, and saves nothing.
    """
    return ["Conv"] if stage == "encoder" else None
