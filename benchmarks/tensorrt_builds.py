"""Measure build times, engine sizes and kernels of TensorRT-RTX for the paper's models at 224x224, T=8.

``python -m benchmarks.tensorrt_builds`` writes ``results/tensorrt-rtx-builds.json``. No GPU is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchmarks.scaffold import calibrated_bundle, machine_words, publish, temporary_folder
from ccr_deploy.backends.kernels import Totals
from ccr_deploy.backends.roofline import find_limits, floor_ms
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.engines.factory import EngineFactory, stage_precisions
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.reporting.kernel_tables import COUNTING, summary
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage

PRESETS = ("ccr-layer1", "ccr-layer2", "ccr-layer3")
PRECISIONS: tuple[EnginePrecision, ...] = ("fp32", "fp16", "int8")
TARGET = "rtx"


FLOORS = ("l4", "rtx4090")
"""The GPUs whose floor is computed, which can run engines of the target."""


class ProfileSummary(Record, frozen=True):
    """The kernels of one batch profile: their number, bytes and work per image, and floors per batch."""

    batch: int | None
    kernels: int
    per_image: Totals | None
    floors_ms: dict[str, float | None]


class EngineBuild(Record, frozen=True):
    """One engine: its build time, its size and its kernels."""

    name: str
    precision: str
    build_seconds: float
    peak_host_memory_mib: float
    engine_bytes: int
    graph_bytes: int
    convolutions: int
    quantized_convolutions: int
    profiles: tuple[ProfileSummary, ...]


class TensorRtBuilds(Record, frozen=True):
    """All engines, with the library's version and the GPUs that they support."""

    schema_version: int
    model: str
    library: str
    device: str
    machine: MachineState
    builds: tuple[EngineBuild, ...]


@click.command()
def main() -> None:
    """Export, calibrate, build, and write the result."""
    with temporary_folder() as folder:
        bundles = {name: calibrated_bundle(name, folder / name) for name in PRESETS}
        store = EngineStore(folder / "engines")
        machine = machine_state()
        # All presets share one encoder.
        wanted: list[tuple[str, Bundle, Stage]] = [
            ("encoder", bundles[PRESETS[0]], "encoder"),
            *((f"classifier of {name}", bundle, "classifier") for name, bundle in bundles.items()),
        ]
        builds = [found for name, bundle, stage in wanted for found in _builds(name, bundle, stage, store)]
        backend = EngineFactory(bundles[PRESETS[0]], TARGET, store).backend
        result = TensorRtBuilds(
            schema_version=2,
            model="the paper's models, untrained, 224x224, T=8, iteration-major",
            library=f"{backend.name} {backend.version}",
            device=backend.device,
            machine=machine,
            builds=tuple(builds),
        )
    publish("tensorrt-rtx-builds", result, builds_table(result), kernels_table(result))


def builds_table(result: TensorRtBuilds) -> Table:
    """Return the table, one row per engine."""
    return Table(
        title="TensorRT-RTX builds",
        columns=(
            "engine",
            "precision",
            "convolutions in INT8",
            "graph MB",
            "engine MB",
            "build s",
            "peak MiB",
        ),
        rows=tuple(
            (
                build.name,
                build.precision.upper(),
                f"{build.quantized_convolutions} of {build.convolutions}",
                f"{build.graph_bytes / 1e6:.1f}",
                f"{build.engine_bytes / 1e6:.1f}",
                f"{build.build_seconds:.1f}",
                f"{build.peak_host_memory_mib:.0f}",
            )
            for build in result.builds
        ),
        note=f"{result.model}; {result.library}, for {result.device}; built without a GPU on "
        f"{machine_words(result.machine)}",
    )


def kernels_table(result: TensorRtBuilds) -> Table:
    """Return the table of kernels: the smallest and the largest batch of one preset's engines."""
    names = ("encoder", f"classifier of {PRESETS[0]}")
    rows = [
        (
            f"{build.name}, {build.precision.upper()}",
            "dynamic" if profile.batch is None else str(profile.batch),
            str(profile.kernels),
            *_traffic(profile),
            *(_per_image(profile, gpu) for gpu in FLOORS),
        )
        for build in result.builds
        if build.name in names
        for profile in (*build.profiles[:1], *build.profiles[1:][-1:])
    ]
    titles = [find_limits(gpu).title.removeprefix("NVIDIA ") for gpu in FLOORS]
    return Table(
        title="TensorRT-RTX kernels",
        columns=(
            "engine",
            "batch",
            "kernels",
            "activations MB",
            "weights MB",
            "MMAC",
            *(f"floor ms on {title}" for title in titles),
        ),
        rows=tuple(rows),
        note=f"{result.model}; {result.library}, for {result.device}; bytes, work and floor per image; "
        f"{COUNTING}; the floor of the roofline model is no prediction",
    )


def int8_cost_table(result: TensorRtBuilds) -> Table:
    """Return the table of INT8 against FP16 for one preset: kernels and bytes at the outermost batches."""
    found = {(build.name, build.precision): build.profiles for build in result.builds}
    return Table(
        title="INT8 compared with FP16",
        columns=("stage", "batch", "INT8", "FP16"),
        rows=tuple(
            (
                name,
                str(int8.batch),
                summary(int8.kernels, int8.per_image),
                summary(fp16.kernels, fp16.per_image),
            )
            for name in ("encoder", f"classifier of {PRESETS[0]}")
            for int8, fp16 in list(zip(found[name, "int8"], found[name, "fp16"], strict=True))[
                :: max(1, len(found[name, "int8"]) - 1)
            ]
        ),
        note=f"{result.model}; {result.library}, for {result.device}",
    )


def _traffic(profile: ProfileSummary) -> tuple[str, str, str]:
    totals = profile.per_image
    if totals is None:
        return "not known", "not known", "not known"
    return (
        f"{totals.activation_bytes / 1e6:.1f}",
        f"{totals.weight_bytes / 1e6:.1f}",
        f"{totals.multiply_accumulates / 1e6:.0f}",
    )


def _per_image(profile: ProfileSummary, gpu: str) -> str:
    floor = profile.floors_ms[gpu]
    return "not known" if floor is None or profile.batch is None else f"{floor / profile.batch:.3f}"


def _builds(name: str, bundle: Bundle, stage: Stage, store: EngineStore) -> Iterator[EngineBuild]:
    for precision in PRECISIONS:
        factory = EngineFactory(bundle, TARGET, store, stage_precisions(precision))
        sidecar = factory.build(stage, rebuild=True)[0].sidecar
        graph = factory.graph_record(stage)
        yield EngineBuild(
            name=name,
            precision=precision,
            build_seconds=sidecar.build_seconds,
            peak_host_memory_mib=sidecar.build.peak_host_memory_mib or 0,
            engine_bytes=sidecar.engine_bytes,
            graph_bytes=graph.file.bytes,
            convolutions=graph.convolutions,
            quantized_convolutions=graph.quantized_convolutions,
            profiles=tuple(
                ProfileSummary(
                    batch=listing.batch,
                    kernels=listing.kernel_count,
                    per_image=listing.per_image,
                    floors_ms={gpu: floor_ms(listing, find_limits(gpu), tf32=False) for gpu in FLOORS},
                )
                for listing in sidecar.build.kernels
            ),
        )


if __name__ == "__main__":
    main()
