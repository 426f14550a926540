"""The kernels that a library compiled for an engine: the records in the sidecar.

`kernel_counting` makes them, and says how bytes and work are counted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ccr_deploy.core.precisions import Precision
from ccr_deploy.core.records import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ExecutedConvolutions: TypeAlias = dict[Precision | Literal["unknown"], int]
"""The number of convolutions that an engine executes in each precision, by the data types of its kernels."""

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
