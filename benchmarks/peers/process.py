"""The process of a candidate: ``python -m benchmarks.peers.process``, started by `PeerProcess`.

It differs from `ccr_deploy.benchmarking.worker` in what it can run: files in a library with its defaults.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.peers.results import Engines, PeerCandidate, PlainFiles, PlainPlans
from ccr_deploy.backends.base import EngineFile
from ccr_deploy.backends.onnxruntime.cpu import import_onnxruntime
from ccr_deploy.backends.openvino.cpu import import_openvino
from ccr_deploy.backends.registry import make_backend
from ccr_deploy.benchmarking.worker import GPU_WARM_UP_SECONDS
from ccr_deploy.codec.contract import pack_code
from ccr_deploy.core.child_process import ChildProcess, Owner, ProcessEndedError
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import Record
from ccr_deploy.engines.loading import load_engine
from ccr_deploy.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ccr_deploy.backends.runner import Runner

FIRST_RUN_SECONDS = 900
"""Time limit of the first run of a batch size: `torch.compile` compiles in it."""
ROUND_SECONDS = 600

Array: TypeAlias = npt.NDArray[np.generic]
Step: TypeAlias = "Callable[[Array], Array]"
"""One engine or file: takes its input and returns its output."""


class Load(Record, frozen=True):
    """Message to a process: the candidate, and the inputs of the largest batch as an ``.npy`` file."""

    candidate: PeerCandidate
    inputs: Path


class FirstRun(Record, frozen=True, tag=True):
    """Message to a process: prepare a batch size, run it, and write the output as an ``.npy`` file."""

    batch: int
    answer: Path


class Round(Record, frozen=True, tag=True):
    """Message to a process: run a batch size some times."""

    batch: int
    runs: int


class Ran(Record, frozen=True, tag=True):
    """Message of a process: the time of each run in nanoseconds, and the version of the library."""

    nanoseconds: tuple[int, ...]
    version: str


class Failed(Record, frozen=True, tag=True):
    """Message of a process: the candidate could not be loaded or run; `reason` is one line."""

    reason: str


class PeerProcess(ChildProcess):
    """The process of a candidate. A context manager, so that the process ends with the comparison."""

    def __init__(self, candidate: PeerCandidate, inputs: Path) -> None:
        super().__init__("benchmarks.peers.process")
        self.candidate = candidate
        self.version = ""
        self._send(Load(candidate, inputs))

    def start_first_run(self, batch: int, answer: Path) -> None:
        """Start the first run of a batch size; `finish` waits for it.

        Raises:
            EngineError: if the process ended.
        """
        self._send(FirstRun(batch, answer))

    def round(self, batch: int, runs: int) -> tuple[float, ...]:
        """Run a batch size `runs` times, after a warm-up; return the milliseconds of each run.

        Raises:
            EngineError: if a run fails or the process ends.
        """
        self._send(Round(batch, runs))
        return self.finish(ROUND_SECONDS)

    def finish(self, seconds: float = FIRST_RUN_SECONDS) -> tuple[float, ...]:
        """Wait for the runs that were started last; return the milliseconds of each.

        Raises:
            EngineError: if a run fails, takes longer than `seconds`, or the process ends.
        """
        try:
            answer: Ran | Failed = self.receive(Ran | Failed, seconds)
        except TimeoutError:
            raise EngineError(f"{self.candidate.name}: no response within {seconds:.0f} s") from None
        except ProcessEndedError as error:
            raise EngineError(f"{self.candidate.name}: {error}") from None
        if isinstance(answer, Failed):
            raise EngineError(f"{self.candidate.name}: {answer.reason}")
        self.version = answer.version
        return tuple(nanoseconds / 1e6 for nanoseconds in answer.nanoseconds)

    def _send(self, message: object) -> None:
        try:
            self.send(message)
        except ProcessEndedError as error:
            raise EngineError(f"{self.candidate.name}: {error}") from None


class _EngineSteps:
    """Engines of the store, which serve every batch size."""

    def __init__(self, program: Engines, stack: ExitStack) -> None:
        backend = make_backend(program.options)
        self.version = str(backend.version)
        self.uses_gpu = program.options.uses_gpu
        self._steps = [
            partial(_inferred, stack.enter_context(load_engine(backend, path, precision)))
            for path, precision in program.engines
        ]

    def of(self, batch: int) -> Sequence[Step]:  # noqa: ARG002
        """Return the engines in sequence."""
        return self._steps


class _FileSteps:
    """Plain files in ONNX Runtime or OpenVINO, as their introductions run them."""

    uses_gpu = False

    def __init__(self, program: PlainFiles, stack: ExitStack) -> None:  # noqa: ARG002
        self._program = program
        self._load = _onnxruntime_step if program.library == "onnxruntime" else _openvino_step
        library = import_onnxruntime("onnx") if program.library == "onnxruntime" else import_openvino()
        self.version = str(library.__version__)

    def of(self, batch: int) -> Sequence[Step]:
        """Load the files of a batch size."""
        return [self._load(file, self._program.openvino_hint) for file in self._program.files[batch]]


class _PlanSteps:
    """TensorRT's engines of plain files."""

    uses_gpu = True

    def __init__(self, program: PlainPlans, stack: ExitStack) -> None:
        self._program, self._stack = program, stack
        self._backend = make_backend(program.options)
        self.version = str(self._backend.version)

    def of(self, batch: int) -> Sequence[Step]:
        """Load the engines of a batch size."""
        files = [EngineFile(path, "fp32", self._program.version) for path in self._program.files[batch]]
        return [partial(_inferred, self._stack.enter_context(self._backend.load(file))) for file in files]


class LoadedPeer:
    """A candidate in memory, with the inputs of its runs."""

    def __init__(self, message: Load, stack: ExitStack) -> None:
        program = message.candidate.program
        self._program = _STEPS[type(program)](program, stack)
        self._inputs: Array = np.load(message.inputs)
        self._steps: dict[int, Sequence[Step]] = {}
        self.version = self._program.version

    def run_first(self, message: FirstRun) -> Ran:
        """Prepare a batch size, run it, and write the output: packed codes, or logits."""
        self._steps[message.batch] = self._program.of(message.batch)
        nanoseconds, output = self._run(message.batch)
        is_code = output.ndim == 4  # a plain export returns codes as the network does
        np.save(message.answer, pack_code(output.astype(np.float32)) if is_code else output)
        return Ran((nanoseconds,), self.version)

    def run_round(self, message: Round) -> Ran:
        """Run a batch size some times, after a warm-up.

        On a GPU the warm-up raises its clocks. A candidate that runs once in a round is so slow that a
        warm-up would change little.
        """
        if self._program.uses_gpu:
            end = time.perf_counter() + GPU_WARM_UP_SECONDS
            while time.perf_counter() < end:
                self._run(message.batch)
        elif message.runs > 1:
            self._run(message.batch)
        return Ran(tuple(self._run(message.batch)[0] for _ in range(message.runs)), self.version)

    def _run(self, batch: int) -> tuple[int, Array]:
        array, steps = self._inputs[:batch], self._steps[batch]
        started = time.perf_counter_ns()
        for step in steps:
            array = step(array)
        return time.perf_counter_ns() - started, array


_STEPS: Mapping[type, Any] = {Engines: _EngineSteps, PlainFiles: _FileSteps, PlainPlans: _PlanSteps}


def serve(owner: Owner) -> None:
    """Load a candidate, then run it as often as requested, until the pipe closes."""
    try:
        with ExitStack() as stack:
            loaded = LoadedPeer(owner.receive(Load), stack)
            while True:
                message: FirstRun | Round = owner.receive(FirstRun | Round)
                if isinstance(message, FirstRun):
                    owner.send(loaded.run_first(message))
                else:
                    owner.send(loaded.run_round(message))
    except (EOFError, ConnectionError):
        pass  # the parent process ended
    except Exception as error:  # the parent reports it
        owner.send(Failed(printable(str(error))))


def _inferred(runner: Runner, array: Array) -> Array:
    (spec,) = runner.inputs
    (output,) = runner.infer({spec.name: array}).values()
    return output


def _onnxruntime_step(file: Path, _: str | None) -> Step:
    session = import_onnxruntime("onnx").InferenceSession(file, providers=["CPUExecutionProvider"])
    (argument,) = session.get_inputs()
    return lambda array: session.run(None, {argument.name: array})[0]


def _openvino_step(file: Path, hint: str | None) -> Step:
    config = {"INFERENCE_PRECISION_HINT": hint} if hint else {}
    compiled = import_openvino().Core().compile_model(file, "CPU", config)
    return lambda array: compiled(array)[0]


if __name__ == "__main__":
    serve(Owner())
