"""Compare this project's engines with their peers: ``python -m benchmarks.peers``, or ``make bench``.

Same weights (untrained: speed does not depend on them), same images, same machine; every candidate in its own
process, in interleaved rounds; its answers are compared with PyTorch eager's. On a CPU the candidates are
PyTorch eager, `torch.compile`, a plain ``torch.onnx.export`` of the user's loop in ONNX Runtime and in
OpenVINO, and this project's engines in every schedule, backend and precision that the machine has
instructions for; on a GPU, PyTorch in several forms, TensorRT with the plain export, and this project's
engines. The result is written to ``benchmarks/results/peers-MACHINE.json``.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import click
import numpy as np

from benchmarks.peers.preparation import Prepared, Request, prepare
from benchmarks.peers.process import PeerProcess
from benchmarks.peers.results import SCHEMA_VERSION, Cell, DisturbedCell, PeerBenchmark
from benchmarks.peers.rounds import affordable_rounds, cell_timings, measure, runs_of_candidates
from benchmarks.peers.tables import first_table, times_tables
from benchmarks.scaffold import preset_option, publish, rounds_option, temporary_folder, write_images
from ccr_deploy import CREATED_BY
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.benchmarking.contention import contention, read_cpu_times, watch_start
from ccr_deploy.benchmarking.environment import changes, read_environment
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.reliability import unreliable_reasons
from ccr_deploy.cli.common import TerminalProgress
from ccr_deploy.core.processor import instruction_sets, processor_flags
from ccr_deploy.core.progress import SILENT
from ccr_deploy.errors import EngineError
from ccr_deploy.models.presets import preset
from ccr_deploy.targets.schema import load_target
from ccr_deploy.workflow.doctor import default_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from benchmarks.peers.results import PeerTiming
    from ccr_deploy.benchmarking.results import Subject
    from ccr_deploy.core.progress import Progress

CPU_TARGETS = ("cpu", "cpu-openvino")
FEWEST_ROUNDS_AT_SMALLEST_BATCH = 7
FEWEST_ROUNDS = 3
"""The least number of rounds of a cell at a larger batch size."""


@dataclass(frozen=True)
class Plan:
    """What to compare, and for how long.

    `minutes` are those of all rounds, without exports, builds and first runs; all cells have the same share,
    and at least the rounds of `fewest_rounds`. `rounds` is the largest number of rounds of a cell.
    """

    preset: str
    iterations: tuple[int, ...]
    batches: tuple[int, ...]
    targets: tuple[str, ...]
    minutes: float
    rounds: int
    calibration_images: int = 8

    def fewest_rounds(self, batch: int) -> int:
        """Return the least number of rounds of a cell: more at the smallest batch size."""
        fewest = FEWEST_ROUNDS_AT_SMALLEST_BATCH if batch == min(self.batches) else FEWEST_ROUNDS
        return min(fewest, self.rounds)


@click.command()
@preset_option
@click.option("--iterations", multiple=True, default=(1, 4, 8, 16), show_default=True, help="T; repeatable.")
@click.option("--batch", "batches", multiple=True, default=(1, 16), show_default=True, help="Repeatable.")
@click.option(
    "--minutes",
    default=12.0,
    show_default=True,
    help="Limit of all rounds; each cell has at least 7 at the smallest batch size, else 3.",
)
@rounds_option(12, "Largest number of rounds of a cell.")
def main(
    name: str, iterations: tuple[int, ...], batches: tuple[int, ...], minutes: float, rounds: int
) -> None:
    """Compare the engines with their peers, and write the result for this machine."""
    target = default_target()
    targets = (target,) if load_target(target).uses_gpu else CPU_TARGETS
    plan = Plan(name, iterations, batches, targets, minutes, rounds)
    with temporary_folder() as folder:
        result = compare(plan, folder, TerminalProgress())
    for reason in result.left_out:
        click.echo(f"left out: {reason}", err=True)
    publish(f"peers-{result.slug}", result, first_table(result), *times_tables(result))


def compare(plan: Plan, folder: Path, progress: Progress = SILENT) -> PeerBenchmark:
    """Prepare all candidates, and time them.

    Args:
        plan: what to compare.
        folder: an empty folder for bundles, engines and caches.
        progress: shows the progress.
    """
    write_images(folder / "images", preset(plan.preset).image_height)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # the chain uses the encoder's kernels
    prepared = _prepare_all(plan, folder, progress)
    on_gpu = load_target(plan.targets[0]).uses_gpu
    start = watch_start()
    machine = machine_state(with_gpu=on_gpu, start=start)
    environment = read_environment(machine.gpu_driver)
    comparison = Comparison(plan, folder, progress, [reason for part in prepared for reason in part.left_out])
    groups = list(_groups(prepared))
    for batch in sorted(plan.batches):
        for subject, part in groups:
            comparison.run_cell(subject, part, batch, 60 * plan.minutes / len(groups) / len(plan.batches))
    afterwards = read_environment(machine.gpu_driver)
    config = preset(plan.preset)
    return PeerBenchmark(
        schema_version=SCHEMA_VERSION,
        created_by=CREATED_BY,
        model=f"{plan.preset}, untrained, {config.image_height}x{config.image_width}",
        machine=machine,
        instruction_sets=instruction_sets(processor_flags()),
        max_isa=os.environ.get(MAX_ISA_VARIABLE),
        timings=tuple(comparison.timings),
        left_out=tuple(comparison.left_out),
        environment_before=environment,
        environment_after=afterwards,
        disturbed_cells=tuple(comparison.disturbed),
        unreliable_reasons=(
            *unreliable_reasons(thread_count(), [start]),
            *changes(environment, afterwards),
        ),
    )


class Comparison:
    """The timing of one cell after the other."""

    def __init__(self, plan: Plan, folder: Path, progress: Progress, left_out: list[str]) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self.timings: list[PeerTiming] = []
        self.disturbed: list[DisturbedCell] = []
        self.left_out = left_out

    def run_cell(self, subject: Subject, part: Prepared, batch: int, seconds: float) -> None:
        """Time a stage or the chain at one T and one batch size.

        Args:
            subject: the stage, or the chain.
            part: the candidates.
            batch: the batch size.
            seconds: the time for the rounds.
        """
        cell = Cell(subject, None if subject == "classifier" else part.iterations, batch)
        with ExitStack() as stack:
            processes = [
                stack.enter_context(PeerProcess(candidate, part.inputs(subject, candidate)))
                for candidate in part.candidates[subject]
            ]
            running, answers, first_ms = self._first_runs(processes, batch)
            before = read_cpu_times()
            samples = measure(
                running,
                cell,
                runs=runs_of_candidates(running, batch, first_ms),
                rounds=lambda took: affordable_rounds(
                    seconds, took, self._plan.fewest_rounds(batch), self._plan.rounds
                ),
                progress=self._progress,
            )
            observed = contention(subject, before, read_cpu_times())
        if reasons := unreliable_reasons(thread_count(), [observed]):
            self.disturbed.append(DisturbedCell(cell, reasons))
        self.timings += cell_timings(cell, running, samples, answers)

    def _first_runs(
        self, processes: Sequence[PeerProcess], batch: int
    ) -> tuple[list[PeerProcess], dict[str, npt.NDArray[np.generic]], list[float]]:
        """Run each candidate once; return those that can, their answers by name, and the milliseconds."""
        running, answers, milliseconds = [], {}, []
        for number, process in enumerate(processes):
            answer = self._folder / f"answer-{number}.npy"
            try:
                process.start_first_run(batch, answer)
                (first_ms,) = process.finish()
            except EngineError as error:
                self.left_out.append(str(error))
                continue
            running.append(process)
            milliseconds.append(first_ms)
            answers[process.candidate.name] = np.load(answer)
        return running, answers, milliseconds


def _prepare_all(plan: Plan, folder: Path, progress: Progress) -> list[Prepared]:
    """Prepare every T, two at a time, because much of the work uses one core; the longest first."""
    requests = [
        Request(plan.preset, iterations, plan.batches, plan.targets, folder, plan.calibration_images)
        for iterations in sorted(plan.iterations, reverse=True)
    ]
    with (
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
        progress.task("exporting, calibrating, building", len(requests)) as advance,
    ):
        futures = [pool.submit(prepare, request) for request in requests]
        prepared = []
        for future in futures:
            prepared.append(future.result())
            advance(1)
    return sorted(prepared, key=lambda part: part.iterations)


def _groups(prepared: Sequence[Prepared]) -> Iterator[tuple[Subject, Prepared]]:
    """Yield the stage or chain and the T of each group of processes; a classifier does not depend on T."""
    for part in prepared:
        yield "encoder", part
    yield "classifier", prepared[0]
    for part in prepared:
        yield "chain", part


if __name__ == "__main__":
    main()
