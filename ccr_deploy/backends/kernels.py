"""The kernels that a library compiled for an engine: the records in the sidecar, and how they are counted.

Bytes are counted by the tensors of a kernel: each activation tensor that the kernel reads or writes counts
once per kernel, and so does each of its weights. This is the traffic to memory if no kernel finds its inputs
in a cache. Multiply-accumulates are those of convolutions and matrix products, with padded channels, as
compiled.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ccr_deploy.core.precisions import Precision
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ccr_deploy.backends.build_facts import ExecutedConvolutions

KernelKind: TypeAlias = Literal[
    "convolution", "matrix product", "fused elementwise", "copy", "resampling", "shape", "other"
]
"""The kind of a kernel.

A "copy" moves or converts data without arithmetic: slices, concatenations, transpositions and casts. "fused
elementwise" includes reductions that are compiled together with elementwise operations. A "shape" computes
sizes for a dynamic batch; it reads and writes no tensor, and is not counted as a kernel.
"""

ElementType: TypeAlias = Literal[
    "fp64", "fp32", "fp16", "bf16", "fp8", "fp4", "int64", "int32", "int8", "int4", "uint8", "bool", "unknown"
]
"""The data type of a tensor's elements."""

_BITS: dict[ElementType, int] = {
    "fp64": 64,
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "fp8": 8,
    "fp4": 4,
    "int64": 64,
    "int32": 32,
    "int8": 8,
    "int4": 4,
    "uint8": 8,
    "bool": 8,
}


class KernelGroup(Record, frozen=True, kw_only=True):
    """Kernels of one engine that are equal in kind, data type, bytes and work, and how many there are.

    `computes_in` is the data type of the first input. The other numbers are those of one kernel for one run
    of the whole batch; None if they depend on a dynamic batch, or are not known.
    """

    kind: KernelKind
    computes_in: ElementType
    count: int
    activation_bytes: int | None
    weight_bytes: int | None
    multiply_accumulates: int | None


class ConvolutionGroup(Record, frozen=True, kw_only=True):
    """Convolutions whose kernels have the same data types.

    `inputs` begins with the type of the data that is convolved; another type follows if the kernel adds a
    tensor of that type. `names` are the names of the convolutions in the graph.
    """

    inputs: tuple[ElementType, ...]
    weights: ElementType
    outputs: tuple[ElementType, ...]
    names: tuple[str, ...]


class Totals(Record, frozen=True, kw_only=True):
    """The bytes that an engine's kernels move for an image, and the multiply-accumulates that they compute.

    Weights are read once for a whole batch, so that `weight_bytes` falls with the batch.
    """

    activation_bytes: float
    weight_bytes: float
    multiply_accumulates: float

    @property
    def bytes(self) -> float:
        """The bytes of activations and weights."""
        return self.activation_bytes + self.weight_bytes


class KernelListing(Record, frozen=True, kw_only=True):
    """The kernels that a library compiled for a batch profile.

    `devices` are the devices for which it chose the same kernels: compute capabilities, or a GPU's name.
    `batch` is None for a profile with a dynamic batch.
    """

    devices: tuple[str, ...]
    batch: int | None
    kernels: tuple[KernelGroup, ...]
    convolutions: tuple[ConvolutionGroup, ...]

    @property
    def counts(self) -> dict[KernelKind, int]:
        """The number of kernels of each kind, the most frequent first; without shape computations."""
        counts: Counter[KernelKind] = Counter()
        for group in self.kernels:
            if group.kind != "shape":
                counts[group.kind] += group.count
        return dict(counts.most_common())

    @property
    def kernel_count(self) -> int:
        """The number of kernels, without shape computations."""
        return sum(self.counts.values())

    @property
    def per_image(self) -> Totals | None:
        """The bytes and the work of all kernels for an image; None if they are not known."""
        if self.batch is None:
            return None
        activations = weights = work = 0
        for group in self.kernels:
            if (
                group.activation_bytes is None
                or group.weight_bytes is None
                or group.multiply_accumulates is None
            ):
                return None
            activations += group.count * group.activation_bytes
            weights += group.count * group.weight_bytes
            work += group.count * group.multiply_accumulates
        return Totals(
            activation_bytes=activations / self.batch,
            weight_bytes=weights / self.batch,
            multiply_accumulates=work / self.batch,
        )


@dataclass(frozen=True)
class Tensor:
    """A tensor of a kernel; a dimension that depends on a dynamic batch is -1.

    `dimensions` is None if the library does not tell them.
    """

    name: str
    dimensions: tuple[int, ...] | None
    type: ElementType

    @property
    def elements(self) -> int | None:
        """The number of elements; None if it is not known."""
        if self.dimensions is None or any(size < 0 for size in self.dimensions):
            return None
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> int | None:
        """The size in bytes; None if it is not known."""
        if self.elements is None or self.type not in _BITS:
            return None
        return -(-self.elements * _BITS[self.type] // 8)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, as a library lists it.

    `inputs` begins with the data that a convolution or matrix product computes with. `weights` are all its
    constants: weights, bias and scales. `nodes` are the names of the graph's nodes that it executes.
    """

    kind: KernelKind
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]

    @property
    def computes_in(self) -> ElementType:
        """The data type of the first input."""
        return self.inputs[0].type if self.inputs else "unknown"

    @property
    def main_weights(self) -> Tensor | None:
        """The weights of a convolution or matrix product: the largest constant; None if there is none."""
        return max(self.weights, key=lambda tensor: tensor.elements or 0, default=None)


def list_kernels(
    kernels: Sequence[Kernel], convolutions: Collection[str], *, devices: tuple[str, ...], batch: int | None
) -> KernelListing:
    """Return the record of an engine's kernels.

    Args:
        kernels: the kernels of one batch profile.
        convolutions: the names of the graph's convolutions.
        devices: the devices that they were compiled for.
        batch: the profile's batch; None if it is dynamic.
    """
    return KernelListing(
        devices=devices,
        batch=batch,
        kernels=_grouped(kernels),
        convolutions=_convolutions(kernels, frozenset(convolutions)),
    )


def executed_convolutions(
    listings: Iterable[KernelListing], convolutions: Collection[str]
) -> ExecutedConvolutions:
    """Count the graph's convolutions by the precision in which the kernels execute them.

    A convolution is executed in INT8 only if its inputs and weights are both INT8. Otherwise the higher of
    the two precisions counts, or the only one that is known. Of several listings the highest counts.

    Args:
        listings: the kernels by device and batch profile.
        convolutions: the names of the graph's convolutions.
    """
    highest_first: tuple[Precision, ...] = get_args(Precision)
    types: dict[str, set[ElementType]] = {}
    for group in (group for listing in listings for group in listing.convolutions):
        for name in group.names:
            types.setdefault(name, set()).update((*group.inputs[:1], group.weights))
    counts: ExecutedConvolutions = dict.fromkeys((*reversed(highest_first), "unknown"), 0)
    for name in convolutions:
        found = types.get(name, ())
        counts[next((precision for precision in highest_first if precision in found), "unknown")] += 1
    return counts


def multiply_accumulates(kernel: Kernel) -> int | None:
    """Return the multiply-accumulates of a kernel; 0 unless it is a convolution or a matrix product.

    A convolution whose weights have the dimensions (K, C, R, S) computes C·R·S of them for each element of
    its output. A matrix product of (M, K) by (K, N) computes M·N·K: the square root of the product of the
    numbers of elements M·K, K·N and M·N.

    Returns:
        None if a dimension is not known.
    """
    if kernel.kind not in {"convolution", "matrix product"}:
        return 0
    weights = kernel.main_weights
    if not (kernel.inputs and weights and kernel.outputs):
        return None
    data, output = kernel.inputs[0], kernel.outputs[0]
    if not (data.elements and weights.elements and output.elements and weights.dimensions):
        return None
    if kernel.kind == "convolution":
        return output.elements * (weights.elements // weights.dimensions[0])
    return math.isqrt(data.elements * weights.elements * output.elements)


def _grouped(kernels: Iterable[Kernel]) -> tuple[KernelGroup, ...]:
    """Count equal kernels, in the order in which they first run."""
    counts = Counter(
        (
            kernel.kind,
            kernel.computes_in,
            _bytes((*kernel.inputs, *kernel.outputs)),
            _bytes(kernel.weights),
            multiply_accumulates(kernel),
        )
        for kernel in kernels
    )
    return tuple(
        KernelGroup(
            kind=kind,
            computes_in=computes_in,
            count=count,
            activation_bytes=activations,
            weight_bytes=weights,
            multiply_accumulates=work,
        )
        for (kind, computes_in, activations, weights, work), count in counts.items()
    )


def _bytes(tensors: Iterable[Tensor]) -> int | None:
    """Return the bytes of tensors, each counted once; None if one is not known."""
    sizes = {tensor.name: tensor.bytes for tensor in tensors}.values()
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _convolutions(kernels: Iterable[Kernel], names: frozenset[str]) -> tuple[ConvolutionGroup, ...]:
    """Group the graph's convolutions by the data types of the kernels that execute them."""
    groups: dict[tuple[tuple[ElementType, ...], ElementType, tuple[ElementType, ...]], list[str]] = {}
    for kernel in kernels:
        if kernel.kind not in {"convolution", "matrix product"}:
            continue
        weights = kernel.main_weights
        types = (_types(kernel.inputs), weights.type if weights else "unknown", _types(kernel.outputs))
        found = [name for name in kernel.nodes if name in names]
        if found:
            groups.setdefault(types, []).extend(found)
    return tuple(
        ConvolutionGroup(inputs=inputs, weights=weights, outputs=outputs, names=tuple(found))
        for (inputs, weights, outputs), found in groups.items()
    )


def _types(tensors: Iterable[Tensor]) -> tuple[ElementType, ...]:
    """Return the distinct data types of tensors, in their order."""
    return tuple(dict.fromkeys(tensor.type for tensor in tensors))
