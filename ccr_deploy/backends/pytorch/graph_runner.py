"""A packed network with a CUDA graph per batch size, from pinned memory to pinned memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ccr_deploy.backends.device_timer import timed_on_device
from ccr_deploy.backends.pytorch.packed import packed_network
from ccr_deploy.backends.runner import Arrays, Outputs, Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ccr_deploy.backends.pytorch.engine_file import StageNetwork
    from ccr_deploy.backends.pytorch.options import PyTorchOptions
    from ccr_deploy.backends.pytorch.packed import PackedClassifier, PackedEncoder

_WARM_UP_RUNS = 3
"""Runs before a capture, as PyTorch's documentation of CUDA graphs recommends.

They initialise libraries, let cuDNN search its algorithms, and compile, none of which can be captured.
"""
_COMPILE_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
"""Modes of `torch.compile` without CUDA graphs of its own: the runner captures one with the copies."""


@dataclass(frozen=True)
class _BatchSize:
    """The host memory of a batch size, and the function that enqueues a run from and to it."""

    host_input: Tensor
    device_input: Tensor
    host_output: Tensor
    launch: Callable[[], object]


class GraphRunner(Runner):
    """A packed network. On a GPU each batch size is captured as a CUDA graph when it is first used.

    On a CPU, where nothing can be captured, the same commands run directly.
    """

    def __init__(
        self,
        network: PackedEncoder | PackedClassifier,
        engine: StageNetwork,
        device: torch.device,
        compile_mode: str | None = None,
    ) -> None:
        """Move a network to a device.

        Args:
            network: the packed network.
            engine: the engine that it was made from.
            device: the device to run it on.
            compile_mode: the mode of `torch.compile`; None to capture the eager network.
        """
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._network: torch.nn.Module | None = network.to(device)
        if compile_mode:
            network.compile(mode=_COMPILE_MODES[compile_mode], dynamic=False)
        self._batch_sizes: dict[int, _BatchSize] = {}
        self.inputs = engine.inputs
        self._output = "logits" if engine.stage == "classifier" else "code"

    @property
    def device_memory_mib(self) -> float | None:
        """The largest amount of GPU memory that PyTorch has reserved, in MiB; None on a CPU."""
        return torch.cuda.max_memory_reserved() / 2**20 if self._stream else None

    @torch.inference_mode()
    def on_device(self, feeds: Arrays) -> Callable[[], None] | None:
        """Copy one batch to the GPU, and return a function that launches a CUDA graph without copies."""
        stream, network = self._stream, self._network
        if stream is None:
            return None
        assert network is not None
        self._run(feeds)  # which copies the batch
        (array,) = feeds.values()
        device_input = self._batch_sizes[len(array)].device_input
        launch = self._captured(lambda: network(device_input), stream)

        def run() -> None:
            with timed_on_device(self.device_timer, stream.cuda_stream):
                launch()
            stream.synchronize()

        return run

    @torch.inference_mode()
    def _run(self, feeds: Arrays) -> Outputs:
        (array,) = feeds.values()
        entry = self._batch_sizes.get(len(array))
        if entry is None:
            entry = self._batch_sizes[len(array)] = self._prepared(array.shape)
        entry.host_input.numpy()[:] = array
        with timed_on_device(self.device_timer, self._stream.cuda_stream if self._stream else 0):
            entry.launch()
        if self._stream:
            self._stream.synchronize()
        return {self._output: entry.host_output.numpy().copy()}

    def _close(self) -> None:
        self._batch_sizes.clear()
        self._network = None

    def _prepared(self, shape: tuple[int, ...]) -> _BatchSize:
        """Allocate the memory of a batch, and return it with a function that enqueues a run."""
        network, pinned = self._network, self._stream is not None
        assert network is not None
        host_input = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
        device_input = host_input.to(self._device)
        output = network(device_input)
        host_output = torch.empty(output.shape, dtype=output.dtype, pin_memory=pinned)

        def enqueue() -> None:
            device_input.copy_(host_input, non_blocking=True)
            host_output.copy_(network(device_input), non_blocking=True)

        launch = self._captured(enqueue, self._stream) if self._stream else enqueue
        return _BatchSize(host_input, device_input, host_output, launch)

    def _captured(self, enqueue: Callable[[], object], stream: torch.cuda.Stream) -> Callable[[], None]:
        """Return a function that launches a CUDA graph of what `enqueue` puts into the stream."""
        stream.wait_stream(torch.cuda.current_stream())  # which copies the weights
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                enqueue()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local, so that calls of other threads, such as cudaMalloc, do not invalidate the capture.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            enqueue()

        def launch() -> None:
            with torch.cuda.stream(stream):
                graph.replay()

        return launch


def graph_runner(engine: StageNetwork, options: PyTorchOptions) -> GraphRunner:
    """Return the runner of an engine in FP16, as CUDA graphs on the options' device.

    Args:
        engine: the engine, whose weights are changed.
        options: options with `fp16_cuda_graph`.

    Raises:
        EngineError: if it is the engine of a baseline.
    """
    assert options.fp16_cuda_graph
    network = packed_network(
        engine.network,
        engine.model,
        engine.preprocessing,
        dtype=torch.float16,
        schedule=options.fp16_cuda_graph,
    )
    return GraphRunner(network, engine, torch.device(options.device), options.compile_mode)
