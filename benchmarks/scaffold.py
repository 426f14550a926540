"""Shared parts of the scripts: options, untrained bundles, interleaved measurements, result files.

Weights are untrained if only speed, memory or sizes are measured, which do not depend on them.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import numpy as np
from PIL import Image

from ccr_deploy.benchmarking.contention import contention, read_cpu_times
from ccr_deploy.cli.common import TerminalProgress, stdout_console
from ccr_deploy.core import records
from ccr_deploy.core.atomic import write_atomically
from ccr_deploy.core.untrusted import parse_json
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from ccr_deploy.models.presets import preset
from ccr_deploy.quantization.converters import CONVERTERS
from ccr_deploy.quantization.recipe import CalibrationRecipe
from ccr_deploy.reporting.terminal import print_table
from ccr_deploy.workflow.calibrate import calibrate_bundle
from training.data.photos import load_photos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ccr_deploy.backends.runner import Arrays, Runner
    from ccr_deploy.benchmarking.results import Contention, MachineState, Phase
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.stages import ChainStage, Schedule
    from ccr_deploy.reporting.table import Table

Result = TypeVar("Result")
Name = TypeVar("Name", bound=str)

RESULTS = Path(__file__).parent / "results"
MODEL = "ccr-layer1"
IMAGES = 256
"""The number of crops that `write_images` makes."""

preset_option = click.option(
    "--preset", "name", default=MODEL, show_default=True, help="Preset of the model."
)


def rounds_option(default: int, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the option ``--rounds``.

    Args:
        default: the default number of rounds.
        what: the help text.
    """
    return click.option("--rounds", default=default, show_default=True, help=what)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def untrained_bundle(
    name: str,
    folder: Path,
    schedules: Sequence[Schedule] = ("iteration-major",),
    baseline: str | None = None,
) -> Bundle:
    """Export a preset in FP32 to ``bundle`` in a folder.

    Args:
        name: the preset.
        folder: the folder to write ``bundle`` to.
        schedules: the unroll schedules of the encoder.
        baseline: the preset of the conventional chain that is exported with it.
    """
    chain = untrained_checkpoint(preset(baseline)) if baseline else None
    checkpoint = untrained_checkpoint(preset(name))
    return export_bundle(checkpoint, folder / "bundle", schedules=schedules, baseline=chain)


def untrained_bundle_with_fp16(
    name: str, folder: Path, schedules: Sequence[Schedule] = ("iteration-major",)
) -> Bundle:
    """Export a preset in FP32 and FP16.

    Args:
        name: the preset.
        folder: where ``images`` and ``bundle`` are written.
        schedules: the unroll schedules of the encoder.
    """
    write_images(folder / "images", preset(name).image_height)
    return export_bundle(
        untrained_checkpoint(preset(name)),
        folder / "bundle",
        schedules=schedules,
        images=folder / "images",
        converters=CONVERTERS,
        progress=TerminalProgress(),
    )


def calibrated_bundle(
    name: str,
    folder: Path,
    samples: int = 16,
    held_out_samples: int = 1,
    schedules: Sequence[Schedule] = ("iteration-major",),
) -> Bundle:
    """Export a preset in every precision, calibrated on so few images that only its speed is meaningful.

    Args:
        name: the preset.
        folder: where ``images`` and ``bundle`` are written.
        samples: number of calibration images.
        held_out_samples: number of images to measure accuracy on.
        schedules: the unroll schedules of the encoder.
    """
    bundle = untrained_bundle_with_fp16(name, folder, schedules)
    recipe = CalibrationRecipe(samples=samples, held_out_samples=held_out_samples)
    return calibrate_bundle(bundle, folder / "images", recipe, progress=TerminalProgress()).bundle


def untrained_model(name: str, bundle: Bundle) -> str:
    """Return the name of an untrained bundle's model in results."""
    model = bundle.manifest.model
    return f"{name}, untrained, {model.image_height}x{model.image_width}, T={model.iterations}"


def write_images(folder: Path, size: int) -> None:
    """Write `IMAGES` crops of scikit-image's photos, enlarged if a photo is too small."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    photos = load_photos()
    for number in range(IMAGES):
        image = Image.fromarray(photos[number % len(photos)].pixels)
        scale = max(1.0, size / min(image.size))
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        left = int(generator.integers(image.width - size + 1))
        top = int(generator.integers(image.height - size + 1))
        image.crop((left, top, left + size, top + size)).save(folder / f"{number:03d}.png")


def interleaved(
    what: str, measurements: Mapping[Name, Callable[[], float]], rounds: int
) -> dict[Name, list[float]]:
    """Run interleaved measurements: every round runs each of them once.

    Args:
        what: the title of the progress bar.
        measurements: a function for each measurement, by name; it returns one value.
        rounds: number of rounds.

    Returns:
        The values of each measurement, one for each round.
    """
    found: dict[Name, list[float]] = {name: [] for name in measurements}
    with TerminalProgress().task(what, rounds) as advance:
        for _ in range(rounds):
            for name, measure in measurements.items():
                found[name].append(measure())
            advance(1)
    return found


@contextlib.contextmanager
def watched(phase: Phase, found: list[Contention]) -> Iterator[None]:
    """Measure the contention while the context runs, and append it to a list.

    The processes that this one started, for example servers, are not counted as other processes.

    Args:
        phase: what is measured meanwhile.
        found: the list.
    """
    before = read_cpu_times()
    yield
    found.append(contention(phase, before, read_cpu_times()))


def unreliable_warning(reasons: Sequence[str]) -> str:
    """Return the warning below a table of an unreliable run, or "" for a reliable one."""
    return f"UNRELIABLE: {'; '.join(reasons)}: measure again on an idle machine" if reasons else ""


def random_feeds(bundle: Bundle, stage: ChainStage, batch: int) -> Arrays:
    """Return random inputs of a stage by name.

    Args:
        bundle: the bundle that the stage belongs to.
        stage: the stage.
        batch: the number of items.
    """
    generator = np.random.default_rng(0)
    return {
        name: generator.integers(0, 256, (batch, *shape), dtype=np.uint8)
        for name, shape in bundle.manifest.input_shapes(stage).items()
    }


def cpu_time_ratio(what: str, first: Runner, second: Runner, feeds: Arrays, rounds: int) -> float:
    """Return the median CPU time of a runner, divided by that of another, interleaved in this process.

    Args:
        what: the title of the progress bar.
        first: the runner whose time is divided.
        second: the runner that it is compared with.
        feeds: inputs by name; both runners have run a batch of this size before, which prepares it.
        rounds: number of rounds; each runs both once.
    """

    def cpu_seconds(runner: Runner) -> float:
        started = time.process_time()
        runner.infer(feeds)
        return time.process_time() - started

    runners = {"first": first, "second": second}
    seconds = interleaved(
        what, {name: partial(cpu_seconds, runner) for name, runner in runners.items()}, rounds
    )
    return float(np.median(seconds["first"]) / np.median(seconds["second"]))


def machine_words(machine: MachineState) -> str:
    """Return the processor and number of cores of a machine, for the notes of tables."""
    return f"{machine.processor}, {machine.usable_cores} cores"


def to_json(result: object) -> bytes:
    """Return a result as JSON, the content of its file."""
    return f"{records.to_json(result)}\n".encode()


def from_json(text: bytes, kind: type[Result]) -> Result:
    """Read a result from JSON, the content of its file."""
    return records.convert(kind, parse_json(text))


def result_path(name: str) -> Path:
    """Return the path of a result's file."""
    return RESULTS / f"{name}.json"


def result_names(prefix: str) -> list[str]:
    """Return the names of the committed results of several machines, which begin with a prefix."""
    return sorted(path.stem for path in RESULTS.glob(f"{prefix}*.json"))


def read_result(name: str, kind: type[Result]) -> Result:
    """Read a committed result."""
    return from_json(result_path(name).read_bytes(), kind)


def publish(name: str, result: object, *tables: Table) -> None:
    """Write a result's file and print its tables.

    Args:
        name: name of the file, without its suffix.
        result: the result.
        tables: the result as tables.
    """
    write_atomically(result_path(name), to_json(result))
    for table in tables:
        print_table(stdout_console(), table)
