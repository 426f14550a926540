"""The process that runs the chain from image file to label, through the library that a product calls.

``python -m ccr_deploy.workflow.end_to_end_process DESCRIPTOR``, started by `ccr_deploy.workflow.end_to_end`.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

from ccr_deploy.benchmarking.energy import find_meter, measure_energy
from ccr_deploy.benchmarking.stage_results import Energy
from ccr_deploy.benchmarking.worker import GPU_WARM_UP_SECONDS, WARM_UP_RUNS, Failed
from ccr_deploy.core.child_process import Owner, peak_memory_mib
from ccr_deploy.core.printable import printable
from ccr_deploy.core.records import Record
from ccr_deploy.data.images import fit_image, load_image, open_rgb
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier, Encoder


class Begin(Record, frozen=True):
    """Message to the process: the engines to load, and the image files to read."""

    bundle: Path
    target: str
    store: Path
    images: tuple[Path, ...]
    uses_gpu: bool


class Ready(Record, frozen=True, tag=True):
    """Message of the process: the engines are loaded."""


class RunRound(Record, frozen=True, tag=True):
    """Message to the process: run the chain `runs` times with time stamps, and as often without."""

    runs: int


class MeasureEnergy(Record, frozen=True, tag=True):
    """Message to the process: measure the energy of one image."""

    idle_seconds: float
    load_seconds: float


class RoundTimes(Record, frozen=True, tag=True):
    """Message of the process: the times of one round in nanoseconds, and the memory used so far.

    `steps` are the times of each step, one tuple for each run. `chain` are those of the runs without time
    stamps.
    """

    steps: tuple[tuple[int, ...], ...]
    chain: tuple[int, ...]
    peak_memory_mib: float
    device_memory_mib: float | None


class EnergyFound(Record, frozen=True, tag=True):
    """Message of the process: the energy of one image."""

    energy: Energy


class LoadedChain:
    """Both engines in memory, and the image files that are read in turn."""

    def __init__(self, begin: Begin, encoder: Encoder, classifier: Classifier) -> None:
        self._encoder = encoder
        self._classifier = classifier
        self._uses_gpu = begin.uses_gpu
        self._images = cycle(begin.images)
        contract = encoder.contract
        self._fit = contract.preprocessing, contract.image_height, contract.image_width

    def round(self, runs: int) -> RoundTimes:
        """Warm up, then run the chain with and without time stamps in turn, each `runs` times."""
        self._warm_up()
        steps: list[tuple[int, ...]] = []
        chain: list[int] = []
        for number in range(runs):
            path = next(self._images)
            # In changing order: the second of the two finds the image in the processor's caches.
            if number % 2:
                chain.append(self._timed_chain(path))
            steps.append(self._timed_steps(path))
            if not number % 2:
                chain.append(self._timed_chain(path))
        memory = [self._encoder.device_memory_mib, self._classifier.device_memory_mib]
        on_device = [mib for mib in memory if mib is not None]
        return RoundTimes(
            tuple(steps), tuple(chain), peak_memory_mib(), sum(on_device) if on_device else None
        )

    def energy(self, request: MeasureEnergy) -> Energy:
        """Measure the energy of one image."""
        return measure_energy(
            partial(find_meter, uses_gpu=self._uses_gpu),
            lambda: self._timed_chain(next(self._images)),
            idle_seconds=request.idle_seconds,
            load_seconds=request.load_seconds,
        )

    def _timed_steps(self, path: Path) -> tuple[int, ...]:
        """Run the chain, and return the time of each step of `ChainStep` in nanoseconds."""
        now = time.perf_counter_ns
        stamps = [now()]
        decoded = open_rgb(path)
        stamps.append(now())
        image = fit_image(decoded, *self._fit, path)
        stamps.append(now())
        codes = self._encoder.codes(image[None])
        stamps.append(now())
        payloads = self._encoder.payloads(codes)
        stamps.append(now())
        received = self._classifier.codes(payloads)
        stamps.append(now())
        logits = self._classifier.logits(received)
        stamps.append(now())
        self._classifier.predictions(logits)
        stamps.append(now())
        return tuple(end - start for start, end in pairwise(stamps))

    def _timed_chain(self, path: Path) -> int:
        """Run the chain as a product does, and return its time in nanoseconds."""
        started = time.perf_counter_ns()
        image = load_image(path, *self._fit)
        self._classifier.classify(self._encoder.encode(image[None]))
        return time.perf_counter_ns() - started

    def _warm_up(self) -> None:
        end = time.perf_counter() + (GPU_WARM_UP_SECONDS if self._uses_gpu else 0)
        runs = 0
        while runs < WARM_UP_RUNS or time.perf_counter() < end:
            self._timed_chain(next(self._images))
            runs += 1


def serve(owner: Owner) -> None:
    """Load the engines, then answer the owner's messages until it closes the pipe."""
    try:
        begin: Begin = owner.receive(Begin)
        store = EngineStore(begin.store)
        with (
            Encoder.load(begin.bundle, begin.target, store) as encoder,
            Classifier.load(begin.bundle, begin.target, store) as classifier,
        ):
            loaded = LoadedChain(begin, encoder, classifier)
            owner.send(Ready())
            while True:
                request: RunRound | MeasureEnergy = owner.receive(RunRound | MeasureEnergy)
                if isinstance(request, RunRound):
                    owner.send(loaded.round(request.runs))
                else:
                    owner.send(EnergyFound(loaded.energy(request)))
    except (EOFError, ConnectionError):
        pass  # the parent process ended
    except Exception as error:  # the parent reports it
        owner.send(Failed(printable(str(error))))


if __name__ == "__main__":
    serve(Owner())
