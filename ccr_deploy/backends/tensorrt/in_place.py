"""Run a batch with inputs that are on the GPU already, without copying them to the host and back.

Without a CUDA graph, which holds fixed addresses: the caller's arrays have others in every call. Parts do not
overlap: only their outputs, which are small, are copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.tensorrt.device_arrays import DeviceArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ccr_deploy.backends.runner import Outputs
    from ccr_deploy.backends.tensorrt.contexts import Context, LoadedEngine
    from ccr_deploy.backends.tensorrt.pipeline import Lane
    from ccr_deploy.backends.tensorrt.profiles import Part, Profile

_ALIGNMENT = 256
"""TensorRT requires the addresses of tensors to be multiples of this number of bytes."""


class InPlace:
    """The execution contexts that read the caller's arrays, one for each profile."""

    def __init__(self, engine: LoadedEngine, lane: Lane) -> None:
        self._engine = engine
        self._lane = lane
        self._contexts: dict[Profile, Context] = {}
        self._compiled_sizes: set[int] = set()

    @property
    def stream(self) -> int:
        """The stream in which the arrays are read."""
        return self._lane.stream.handle

    def run(self, parts: Sequence[Part], feeds: Mapping[str, Any], outputs: Outputs) -> None:
        """Run the parts of a batch, one after the other.

        Args:
            parts: the parts.
            feeds: the whole batch's inputs by name, some of which are on the GPU.
            outputs: arrays for the whole batch's outputs by name, which are filled.
        """
        for part in parts:
            context = self._context(part.profile)
            context.bind(part.padded_size, self._lane.inputs, self._lane.outputs)
            on_host = {name: view for name, view in feeds.items() if not isinstance(view, DeviceArray)}
            self._lane.copy_in(part, on_host)
            for name in feeds.keys() - on_host.keys():
                self._read(context, name, feeds[name], part)
            context.enqueue()
            self._lane.copy_out(part)
            self._lane.collect(part, outputs)
            if part.padded_size not in self._compiled_sizes:
                self._engine.save_compiled_kernels()
                self._compiled_sizes.add(part.padded_size)

    def release(self) -> None:
        """Release the contexts."""
        self._contexts.clear()

    def _read(self, context: Context, name: str, view: DeviceArray, part: Part) -> None:
        """Let the context read a part of an array on the GPU, in place if it can."""
        address = view.pointer + part.start * view.bytes_per_item
        is_padded = part.padded_size > part.size  # TensorRT would read beyond the end of the array
        if address % _ALIGNMENT or is_padded:
            size = part.size * view.bytes_per_item
            self._lane.stream.copy_on_device(self._lane.inputs[name].address, address, size)
        else:
            context.set_address(name, address)

    def _context(self, profile: Profile) -> Context:
        if profile not in self._contexts:
            self._contexts[profile] = self._engine.new_context(profile, self._lane.stream)
        return self._contexts[profile]
