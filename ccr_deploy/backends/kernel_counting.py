"""How the kernels of an engine are counted: tensors and kernels as a library lists them, and their totals.

Bytes are counted by the tensors of a kernel: each activation tensor that the kernel reads or writes counts
once per kernel, and so does each of its weights. A tensor of which a kernel reads a slice counts whole: the
lists do not tell the slice, unless it is of the batch, where TensorRT-RTX may state the slice's dimensions.
This is the traffic to memory if no kernel finds its inputs in a cache. Multiply-accumulates are those of
convolutions and matrix products, with padded channels, as compiled.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.backends.kernels import ConvolutionGroup, ElementType, KernelGroup, KernelKind, KernelListing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

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
    def pixels(self) -> tuple[int, int, int] | None:
        """Batch, height and width of a tensor of images, ``[N, C, H, W]``; None if it is none."""
        if self.dimensions is None or len(self.dimensions) != 4 or self.dimensions[2:] == (1, 1):
            return None
        batch, _, height, width = self.dimensions
        return batch, height, width

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
    def activations(self) -> tuple[Tensor, ...]:
        """The tensors of images: inputs, outputs, and constants with the batch and the size of an output.

        TensorRT-RTX keeps the zeros of a padding channel in such a constant, ``[N, 1, H, W]``.
        """
        return (*self.inputs, *self.outputs, *filter(self._is_of_images, self.weights))

    @property
    def shared_weights(self) -> tuple[Tensor, ...]:
        """The constants that all images of a batch share."""
        return tuple(tensor for tensor in self.weights if not self._is_of_images(tensor))

    def _is_of_images(self, constant: Tensor) -> bool:
        # The first dimension of a convolution's weights, the number of channels, may equal the batch.
        if self.kind in {"convolution", "matrix product"} or constant.pixels is None:
            return False
        return any(constant.pixels == output.pixels for output in self.outputs)

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
            _bytes(kernel.activations),
            _bytes(kernel.shared_weights),
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
