"""Measure the chain from image file to label as a product runs it: steps, bytes, memory, start-up, energy."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.benchmarking.energy import IDLE_SECONDS, LOAD_SECONDS
from ccr_deploy.benchmarking.interleaving import ROUND_TARGET_SECONDS, RUNS_PER_ROUND
from ccr_deploy.benchmarking.stage_results import EndToEnd, ImageBytes, StartUp
from ccr_deploy.benchmarking.statistics import median_difference_interval
from ccr_deploy.benchmarking.step_times import step_time, step_times
from ccr_deploy.benchmarking.worker import LOADING_SECONDS, ROUND_SECONDS, Failed
from ccr_deploy.codec.payload import OVERHEAD_BYTES
from ccr_deploy.core.atomic import writing
from ccr_deploy.core.child_process import ChildProcess, ProcessEndedError
from ccr_deploy.core.printable import printable
from ccr_deploy.core.private_folder import make_private_folder
from ccr_deploy.core.progress import SILENT
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.data.images import jpeg, list_images, open_rgb
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import CcrDeployError, EngineError
from ccr_deploy.workflow.end_to_end_process import (
    Begin,
    EnergyFound,
    MeasureEnergy,
    Ready,
    RoundTimes,
    RunRound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ccr_deploy.benchmarking.results import Contention
    from ccr_deploy.benchmarking.stage_results import Energy
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.progress import Progress
    from ccr_deploy.engines.factory import EngineFactory

STARTS = 5
"""Number of new processes whose first answer is timed."""
FIRST_ANSWER = "ccr_deploy.workflow.first_answer"
"""The module that such a process runs."""
_NAME = "from file to label"

_Answer = TypeVar("_Answer", Ready, RoundTimes, EnergyFound)


@dataclass(frozen=True)
class Inputs:
    """What the processes read: a store with the measured engines alone, and image files."""

    bundle: Bundle
    target: str
    store: EngineStore
    images: tuple[Path, ...]
    description: str


def check_images(folder: Path) -> None:
    """Decode the first image of a folder, before a long run that reads all of them.

    Raises:
        ImageError: if there are no images, or the first one cannot be decoded.
    """
    open_rgb(list_images(folder, ())[0].path)


def measure_end_to_end(
    factory: EngineFactory,
    *,
    rounds: int,
    images: Path | None = None,
    energy_seconds: tuple[float, float] = (IDLE_SECONDS, LOAD_SECONDS),
    progress: Progress = SILENT,
) -> tuple[EndToEnd, Contention]:
    """Measure the chain of a target's engines from image file to label; missing engines are built first.

    Args:
        factory: builds the engines.
        rounds: number of rounds.
        images: folder of image files; None for the bundle's sample images as JPEG.
        energy_seconds: how long the idle machine, and the machine under load, are measured.
        progress: advances by one for each round and each start of a process.

    Returns:
        The result, and the contention during its rounds.

    Raises:
        EngineError: if an engine cannot be built, loaded or run.
        ImageError: if there are no images, or one cannot be used.
    """
    with (
        _inputs(factory, images) as inputs,
        progress.task(f"timing: {_NAME}", rounds + STARTS) as advance,
        _Chain() as chain,
    ):
        chain.load(inputs, uses_gpu=factory.target.uses_gpu)
        runs = _runs_per_round(chain.round(2))
        before = read_cpu_times()
        measured = []
        for _ in range(rounds):
            measured.append(chain.round(runs))
            advance(1)
        observed = contention("chain from file to label", before, read_cpu_times())
        energy = chain.energy(*energy_seconds)
        starts = []
        for _ in range(STARTS):
            starts.append(_time_start(inputs))
            advance(1)
        return _result(inputs, measured, _start_up(starts), energy), observed


class _Chain(ChildProcess):
    """The process that runs the chain. A context manager."""

    def __init__(self) -> None:
        super().__init__("ccr_deploy.workflow.end_to_end_process")

    def load(self, inputs: Inputs, *, uses_gpu: bool) -> None:
        """Load the engines."""
        begin = Begin(inputs.bundle.path, inputs.target, inputs.store.path, inputs.images, uses_gpu)
        self._ask(begin, Ready, LOADING_SECONDS)

    def round(self, runs: int) -> RoundTimes:
        """Run the chain `runs` times with time stamps between the steps, and as often without."""
        return self._ask(RunRound(runs), RoundTimes, ROUND_SECONDS)

    def energy(self, idle_seconds: float, load_seconds: float) -> Energy:
        """Measure the energy of one image."""
        return self._ask(MeasureEnergy(idle_seconds, load_seconds), EnergyFound, ROUND_SECONDS).energy

    def _ask(self, message: object, kind: type[_Answer], seconds: float) -> _Answer:
        try:
            self.send(message)
            answer: _Answer | Failed = self.receive(kind | Failed, seconds)
        except TimeoutError:
            raise EngineError(f"{_NAME}: no response within {seconds:.0f} s") from None
        except ProcessEndedError as error:
            raise EngineError(f"{_NAME}: {error}") from None
        if isinstance(answer, Failed):
            raise EngineError(f"{_NAME}: {answer.reason}")
        return answer


@contextmanager
def _inputs(factory: EngineFactory, images: Path | None) -> Iterator[Inputs]:
    """Yield what the processes read, in a temporary folder.

    A product loads the engines that were built last. Those of a benchmark may be others, so a store of their
    own refers to them.
    """
    engines = [factory.build(stage)[0] for stage in CHAIN_STAGES]
    bundle, target = factory.bundle, factory.target_name
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = EngineStore(folder / "engines")
        make_private_folder(store.path)
        store.choose(bundle, target, {stage: factory.resolved(stage) for stage in CHAIN_STAGES})
        for engine in engines:
            (store.path / engine.path.parent.name).symlink_to(engine.path.parent.absolute())
        if images:
            paths = tuple(item.path for item in list_images(images, ()))
            description = printable(f"{len(paths)} image files of {images}")
        else:
            with writing(folder, CcrDeployError, "the image files "):
                paths = _sample_files(bundle, folder)
            size = f"{bundle.manifest.model.image_height}x{bundle.manifest.model.image_width}"
            description = f"the bundle's {len(paths)} samples as JPEG of {size} pixels"
        yield Inputs(bundle, target, store, paths, description)


def _sample_files(bundle: Bundle, folder: Path) -> tuple[Path, ...]:
    """Write the sample images of a bundle as JPEG files, which cameras have."""
    paths = []
    for number, sample in enumerate(bundle.manifest.samples):
        path = folder / f"{number}.jpg"
        path.write_bytes(jpeg(np.asarray(open_rgb(bundle.file(sample.file)))))
        paths.append(path)
    return tuple(paths)


def _runs_per_round(measured: RoundTimes) -> int:
    """Return the number of runs that take the target time of a round, with and without time stamps."""
    fewest, most = RUNS_PER_ROUND
    return int(np.clip(round(ROUND_TARGET_SECONDS / (min(measured.chain) / 1e9)), fewest, most))


def _time_start(inputs: Inputs) -> tuple[float, ...]:
    """Return the duration of each part of a new process, up to its first answer, in ms."""
    arguments = (inputs.bundle.path, inputs.target, inputs.store.path, inputs.images[0])
    command = [sys.executable, "-m", FIRST_ANSWER, *map(str, arguments)]
    started = time.monotonic_ns()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LOADING_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{_NAME}: a new process did not answer within {LOADING_SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EngineError(f"{_NAME}: a new process failed: {printable(last)}")
    stamps = [started, *json.loads(done.stdout.splitlines()[-1])]
    return tuple((stamp - before) / 1e6 for before, stamp in pairwise(stamps))


def _start_up(starts: Sequence[tuple[float, ...]]) -> StartUp:
    imports, load, first_answer = zip(*starts, strict=True)
    return StartUp(
        page_cache="warm",
        imports_ms=imports,
        load_ms=load,
        first_answer_ms=first_answer,
        total_ms=tuple(map(sum, starts)),
    )


def _result(inputs: Inputs, measured: Sequence[RoundTimes], start_up: StartUp, energy: Energy) -> EndToEnd:
    steps = np.array([entry.steps for entry in measured]) / 1e6
    sums, chain = steps.sum(axis=2), np.array([entry.chain for entry in measured]) / 1e6
    contract = inputs.bundle.manifest.contract
    return EndToEnd(
        images=inputs.description,
        image_count=len(inputs.images),
        steps=step_times(steps),
        sum=step_time("sum", sums),
        chain=step_time("chain", chain),
        unaccounted_ms=float(np.median(chain) - np.median(sums)),
        unaccounted_ms_interval=median_difference_interval(chain, sums),
        image_bytes=ImageBytes(
            file=sum(path.stat().st_size for path in inputs.images) / len(inputs.images),
            pixels=contract.image_height * contract.image_width * 3,
            payload=contract.code_bytes + OVERHEAD_BYTES,
        ),
        peak_memory_mib=measured[-1].peak_memory_mib,
        device_memory_mib=measured[-1].device_memory_mib,
        start_up=start_up,
        energy=energy,
    )
