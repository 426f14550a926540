"""Read the kernels of an engine from the log of TensorRT-RTX's builder.

After a build, the builder logs one message at its level VERBOSE that begins with ``Layers:`` and has a line
for each kernel of each optimization profile. Names end in ``_myl0``, ``_myl1`` and so on, the number of the
profile. If a target lists several compute capabilities, the builder compiles the same kernels for all of
them: those that it chooses for the lowest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from ccr_deploy.backends.kernel_counting import Kernel, Tensor, list_kernels
from ccr_deploy.backends.kernels import ElementType, KernelKind, KernelListing
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LISTING = "Layers:\n"
"""The beginning of the message that lists the kernels."""

_KERNEL = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<weights>.*?)\], Outputs: \[(?P<outputs>.*?)\], TacticName: .*?, StreamId: \d+"
    r".*?, Metadata: ?(?P<metadata>.*)"
)
PROFILE = re.compile(r"_myl(\d+)(_\d+)?$")
"""The number of the profile, at the end of a kernel's name."""
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<dimensions>[-\d,]*)\], .*?Datatype: (?P<type>\w+)"
)
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
"""A node of the graph, in the metadata of a kernel."""
_SYNCHRONISATION = frozenset({"signal", "wait"})
"""Types of lines that synchronise two streams, and are no kernels."""

_OPERATIONS = re.compile("[A-Z][a-z]+")
"""The operations in a generated kernel's name, such as Slic, Sigm and Mul in ``__myl_SlicSigmMul``."""
_MOVES = frozenset({"Cast", "Conc", "Copy", "Move", "Pad", "Repl", "Resh", "Slic", "Tran"})
"""Operations that move or convert data without arithmetic."""

_KINDS: dict[str, KernelKind] = {
    "correlation": "convolution",
    "gemm": "matrix product",
    "kgen": "fused elementwise",
    "shape_call": "shape",
}
_TYPES: dict[str, ElementType] = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}


def read_kernels(
    message: str, convolutions: Collection[str], devices: tuple[str, ...], batches: Sequence[int | None]
) -> tuple[KernelListing, ...]:
    """Return the kernels of an engine, one listing for each optimization profile.

    Args:
        message: the builder's message, which begins with `LISTING`.
        convolutions: the names of the graph's convolutions.
        devices: the compute capabilities that the engine was built for.
        batches: the batch of each profile; None for a profile with a dynamic batch.

    Raises:
        EngineError: if the message has another format, or another number of profiles.
    """
    profiles: dict[int, list[Kernel]] = {}
    # Not splitlines(), which would also split at the record separators between a kernel's nodes.
    for line in map(str.strip, message.partition(LISTING)[2].split("\n")):
        if not line.startswith("Name: "):
            break  # the listing of inputs and outputs follows
        fields = _KERNEL.fullmatch(line)
        profile = PROFILE.search(fields["name"]) if fields else None
        if not fields or not profile:
            raise EngineError(f"the builder's list of kernels cannot be read: {line:.120}")
        if fields["type"] not in _SYNCHRONISATION:
            profiles.setdefault(int(profile[1]), []).append(_kernel(fields))
    if sorted(profiles) != list(range(len(batches))):
        raise EngineError(
            f"the builder's list of kernels cannot be read: it has {len(profiles)} profiles, "
            f"expected {len(batches)}"
        )
    return tuple(
        list_kernels(profiles[number], convolutions, devices=devices, batch=batch)
        for number, batch in enumerate(batches)
    )


def _kernel(fields: re.Match[str]) -> Kernel:
    return Kernel(
        kind=kind_of(fields["name"], fields["type"]),
        inputs=_tensors(fields["inputs"]),
        weights=_tensors(fields["weights"]),
        outputs=_tensors(fields["outputs"]),
        nodes=tuple(NODE.findall(fields["metadata"])),
    )


def kind_of(name: str, layer_type: str) -> KernelKind:
    """Return the kind of a kernel, from its type and from the operations in a generated kernel's name."""
    operations = set(_OPERATIONS.findall(PROFILE.sub("", name).removeprefix("__myl_")))
    if layer_type == "kgen" and operations and operations <= _MOVES:
        return "copy"
    if layer_type == "runtime_fusion" and "Fc" in operations:
        return "matrix product"
    if layer_type == "runtime_function" and operations == {"Resi"}:
        return "resampling"
    return _KINDS.get(layer_type, "other")


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=found["name"],
            dimensions=tuple(int(size) for size in found["dimensions"].split(",") if size),
            type=type_named(found["type"]),
        )
        for found in _TENSOR.finditer(text)
    )


def type_named(name: str) -> ElementType:
    """Return a data type by TensorRT's name, such as ``Half`` or ``Int8``."""
    known = {kind: kind for kind in get_args(ElementType)}
    return _TYPES.get(name.lower()) or known.get(name.lower(), "unknown")
