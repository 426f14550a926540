"""Run a batch in parts that overlap, in two lanes.

::

    lane 0   copy in 0 │ kernels 0 │ copy out 0 │            copy in 2 │ kernels 2 │ copy out 2
    lane 1               copy in 1 │            kernels 1              │ copy out 1

A lane is a CUDA stream with its own buffers. Parts use the two lanes in turn, so that the copies of one part
run while the kernels of the other do. Kernels of two parts never run at the same time, because their contexts
share the scratch memory: an event of the other lane starts them. A batch of one part uses one lane.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from ccr_deploy.backends.device_timer import timed_on_device
from ccr_deploy.backends.tensorrt.cuda_graph import capture
from ccr_deploy.backends.tensorrt.memory import Stream, TensorBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ccr_deploy.backends.device_timer import DeviceTimer
    from ccr_deploy.backends.runner import Arrays, Outputs
    from ccr_deploy.backends.tensorrt.contexts import Context, LoadedEngine
    from ccr_deploy.backends.tensorrt.memory import Memory
    from ccr_deploy.backends.tensorrt.profiles import Part

_LOGGER = logging.getLogger(__name__)


class Lane:
    """A stream with the buffers of all inputs and outputs, for the largest batch."""

    def __init__(self, cuda: Any, memory: Memory, engine: LoadedEngine, stack: ExitStack) -> None:  # noqa: ANN401
        """Allocate the buffers, and create the stream.

        Args:
            cuda: the bindings of the CUDA runtime.
            memory: allocates the buffers.
            engine: the engine.
            stack: destroys the stream when it unwinds.
        """
        largest = engine.profiles[-1].largest
        self.inputs = {spec.name: TensorBuffer(memory, spec, largest) for spec in engine.inputs}
        self.outputs = {spec.name: TensorBuffer(memory, spec, largest) for spec in engine.outputs}
        self.stream = Stream(cuda, stack)

    def fill(self, part: Part, feeds: Arrays) -> None:
        """Copy a part of the inputs to the pinned buffers."""
        for name, array in feeds.items():
            self.inputs[name].host[: part.size] = array[part.items]

    def copy_in(self, part: Part, names: Iterable[str]) -> None:
        """Enqueue the copies of a part of some inputs from the pinned buffers to the GPU."""
        for name in names:
            buffer = self.inputs[name]
            self.stream.copy_to_device(buffer.address, buffer.host[: part.size])

    def copy_out(self, part: Part) -> None:
        """Enqueue the copies of a part's outputs to the pinned buffers."""
        for buffer in self.outputs.values():
            self.stream.copy_to_host(buffer.host[: part.size], buffer.address)

    def collect(self, part: Part, outputs: Outputs) -> None:
        """Wait for a part, and write its outputs to their place in the whole batch's."""
        self.stream.wait()
        for name, buffer in self.outputs.items():
            outputs[name][part.items] = buffer.host[: part.size]


@dataclass(frozen=True)
class _Kernels:
    """The kernels for one batch size in one lane; a captured graph keeps using the `context`."""

    context: Context
    enqueue: Callable[[], None]
    is_captured: bool


class Pipeline:
    """The two lanes, and the kernels for each lane and batch size, as CUDA graphs."""

    def __init__(self, cuda: Any, memory: Memory, engine: LoadedEngine, stack: ExitStack) -> None:  # noqa: ANN401
        """Create the lanes; the kernels are prepared on their first use.

        Args:
            cuda: the bindings of the CUDA runtime.
            memory: allocates the buffers.
            engine: the engine.
            stack: destroys streams and CUDA graphs when it unwinds.
        """
        self._cuda = cuda
        self._engine = engine
        self._stack = stack
        self.lanes = (Lane(cuda, memory, engine, stack), Lane(cuda, memory, engine, stack))
        self._kernels: dict[tuple[Lane, int], _Kernels] = {}

    @property
    def captured_batch_sizes(self) -> frozenset[int]:
        """The batch sizes that have been used and run as a CUDA graph."""
        return frozenset(size for (_, size), kernels in self._kernels.items() if kernels.is_captured)

    def run(
        self, parts: Sequence[Part], feeds: Arrays, outputs: Outputs, timer: DeviceTimer | None = None
    ) -> None:
        """Run the parts of a batch.

        Args:
            parts: the parts.
            feeds: the whole batch's inputs by name.
            outputs: arrays for the whole batch's outputs by name, which are filled.
            timer: measures from the first copy to the last; None if nobody measures.
        """
        work = list(zip(cycle(self.lanes), parts))
        # Before the first part starts: preparing kernels runs them, in the scratch memory of all.
        kernels = [self._prepared(lane, part) for lane, part in work]
        running: dict[Lane, Part] = {}
        for index, (lane, part) in enumerate(work):
            if lane in running:  # its buffers hold an earlier part
                lane.collect(running.pop(lane), outputs)
            lane.fill(part, feeds)
            with timed_on_device(timer, lane.stream.handle):
                lane.copy_in(part, feeds)
                if index:
                    lane.stream.wait_for_mark(work[index - 1][0].stream)
                kernels[index].enqueue()
                lane.stream.mark()
                lane.copy_out(part)
            running[lane] = part
        for lane, part in running.items():
            lane.collect(part, outputs)

    def on_device(
        self, part: Part, feeds: Arrays, timer: Callable[[], DeviceTimer | None]
    ) -> Callable[[], None]:
        """Copy a batch of one part to the GPU, and return a function that runs its kernels and waits.

        Args:
            part: the part.
            feeds: the inputs by name.
            timer: returns the timer that measures a run; None if nobody measures.
        """
        lane = self.lanes[0]
        kernels = self._prepared(lane, part)
        lane.fill(part, feeds)
        lane.copy_in(part, feeds)
        lane.stream.wait()

        def run() -> None:
            with timed_on_device(timer(), lane.stream.handle):
                kernels.enqueue()
            lane.stream.wait()

        return run

    def wait(self) -> None:
        """Wait until the GPU has completed all work of both lanes."""
        with ExitStack() as both:  # the second one also if the first one fails
            for lane in self.lanes:
                both.callback(lane.stream.wait)

    def release(self) -> None:
        """Release the contexts. The CUDA graphs that use them must be destroyed before."""
        self._kernels.clear()

    def _prepared(self, lane: Lane, part: Part) -> _Kernels:
        """Return the kernels for a part's batch size, which are captured on their first use."""
        size = part.padded_size
        if (lane, size) not in self._kernels:
            self._kernels[lane, size] = self._prepare(lane, part)
        return self._kernels[lane, size]

    def _prepare(self, lane: Lane, part: Part) -> _Kernels:
        context = self._engine.new_context(part.profile, lane.stream)
        context.bind(part.padded_size, lane.inputs, lane.outputs)
        # TensorRT initializes what depends on the shapes in the first run, which cannot be captured.
        context.enqueue()
        lane.stream.wait()
        self._engine.save_compiled_kernels()
        launch = None
        if context.is_capturable:
            launch = capture(self._cuda, context.enqueue, lane.stream.handle, self._stack)
        else:
            _LOGGER.warning(
                "batch %d cannot be captured as a CUDA graph, according to TensorRT", part.padded_size
            )
        return _Kernels(context, launch or context.enqueue, is_captured=launch is not None)
