"""Measure the image `cpu`: its size and build time, and the server's start time and memory, on one CPU.

``python -m benchmarks.containers``, as root with the tools of ``make test-containers``, builds the image from
Debian's packages with a bundle of ``ccr-layer1`` at 224x224, T=8, starts it as in production with one CPU and
2 GiB, and writes ``benchmarks/results/containers-ccr-layer1.json``. Weights are untrained: neither
time nor memory depends on them.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import numpy as np

from benchmarks.hosts.bases import import_debian
from benchmarks.hosts.clients import ask
from benchmarks.hosts.context import make_context
from benchmarks.hosts.podman import Podman
from benchmarks.scaffold import MODEL, calibrated_bundle, publish, temporary_folder, untrained_model
from ccr_deploy.benchmarking.machine import machine_state
from ccr_deploy.benchmarking.results import MachineState
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from benchmarks.hosts.podman import Container
    from ccr_deploy.bundle.reader import Bundle

BASE = "localhost/debian"
IMAGE = "localhost/ccr-deploy:cpu"
Kind = tuple[str, str]
KINDS: tuple[Kind, ...] = (("cpu", "fp32"), ("cpu-openvino", "fp32"), ("cpu-openvino", "int8"))
"""Targets and precisions."""
LIMITS = ("--memory", "2g", "--memory-swap", "2g")
BUSY_PERCENT = 5
CLIENTS = 4
BATCH = 8
"""Images per request: the server's largest batch."""


class Start(Record, frozen=True):
    """A server in a container. Medians of several starts; resident memory of its one process.

    `loaded_mib` is the peak while requests keep it busy.
    """

    target: str
    precision: str
    first_start_seconds: float
    next_start_seconds: float
    idle_mib: float
    loaded_mib: float


class ContainerBenchmark(Record, frozen=True):
    """The image and its servers; sizes in megabytes of 10^6 bytes, as container engines print them."""

    schema_version: int
    model: str
    engine: str
    base: str
    base_mb: float
    image_mb: float
    bundle_mb: float
    build_seconds: float
    cpus: int
    repeats: int
    machine: MachineState
    starts: tuple[Start, ...]


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Number of starts of each kind.")
@click.option("--load-seconds", default=15.0, show_default=True, help="Seconds for which requests are sent.")
def main(repeats: int, load_seconds: float) -> None:
    """Build, start, measure, and write the result beside this script."""
    with temporary_folder() as folder:
        bundle = calibrated_bundle(MODEL, folder)
        (folder / "podman").mkdir()
        podman = Podman(folder / "podman")
        try:
            result = _measure(podman, bundle, folder, repeats, load_seconds)
        finally:
            podman.clear()
    publish(f"containers-{MODEL}", result, image_table(result), start_table(result))


def image_table(result: ContainerBenchmark) -> Table:
    """Return the table with the image's size and build time."""
    row = (
        f"{result.image_mb:.0f} MB",
        f"{result.base_mb:.0f} MB",
        f"{result.bundle_mb:.0f} MB",
        f"{result.image_mb - result.base_mb - result.bundle_mb:.0f} MB",
        f"{result.build_seconds:.0f} s",
    )
    return Table(
        title="The image cpu",
        columns=("image", "base image", "bundle", "ccr-deploy and its packages", "build time"),
        rows=(row,),
        note=f"{result.model}, on {result.base}, built by {result.engine}, packages from a local mirror",
    )


def start_table(result: ContainerBenchmark) -> Table:
    """Return the table of servers, one row each."""
    share = result.machine.cpu_busy_percent or 0
    busy = f"; other processes used {share:.0f} % of the machine" if share > BUSY_PERCENT else ""
    return Table(
        title="Servers in containers",
        columns=("target", "precision", "first start", "later starts", "memory, idle", "memory, peak"),
        rows=tuple(
            (
                start.target,
                start.precision,
                f"{start.first_start_seconds:.1f} s",
                f"{start.next_start_seconds:.1f} s",
                f"{start.idle_mib:.0f} MiB",
                f"{start.loaded_mib:.0f} MiB",
            )
            for start in result.starts
        ),
        note=f"{result.model}, batches of up to {BATCH}, {result.cpus} CPU of {result.machine.processor}, "
        f"medians of {result.repeats} starts until ready, {result.engine}{busy}",
    )


def _measure(
    podman: Podman, bundle: Bundle, folder: Path, repeats: int, load_seconds: float
) -> ContainerBenchmark:
    import_debian(podman, BASE)
    (folder / "context").mkdir()
    context = make_context(bundle.path, folder / "context")
    began = time.perf_counter()
    podman.build(context, IMAGE, "cpu", {"PYTHON_IMAGE": BASE})
    build_seconds = time.perf_counter() - began
    machine = machine_state()
    starts = tuple(_start(podman, bundle, kind, repeats, load_seconds) for kind in KINDS)
    return ContainerBenchmark(
        schema_version=1,
        model=untrained_model(MODEL, bundle),
        engine=podman("--version").stdout.strip(),
        base="Debian 12 by debootstrap, with Python 3.11",
        base_mb=_size_mb(podman, BASE),
        image_mb=_size_mb(podman, IMAGE),
        bundle_mb=sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6,
        build_seconds=build_seconds,
        cpus=1,
        repeats=repeats,
        machine=machine,
        starts=starts,
    )


def _start(podman: Podman, bundle: Bundle, kind: Kind, repeats: int, load_seconds: float) -> Start:
    """Start servers on new volumes, then again on the same volumes, and send requests to the latter."""
    target, precision = kind
    variables = {"CCR_DEPLOY_TARGET": target, "CCR_DEPLOY_PRECISION": precision}
    environment = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    first: list[float] = []
    later: list[float] = []
    idle: list[float] = []
    loaded: list[float] = []
    for _ in range(repeats):
        with podman.volume() as engines:
            options = (*LIMITS, *environment, "--volume", f"{engines}:/engines")
            for seconds in (first, later):
                began = time.perf_counter()
                with podman.container(IMAGE, options=options) as server:
                    _wait_until_ready(server)
                    seconds.append(time.perf_counter() - began)
                    if seconds is later:
                        idle.append(_memory_mib(server, "VmRSS"))
                        _load(server, bundle, load_seconds)
                        loaded.append(_memory_mib(server, "VmHWM"))
    return Start(target, precision, median(first), median(later), median(idle), median(loaded))


def _wait_until_ready(server: Container) -> None:
    """Wait until the server is ready; requests come from the host, to leave the container's only CPU free."""
    address = f"http://{server.address}:8080/v2/health/ready"
    while not _answers(address):
        if not server.is_running:
            raise click.ClickException(server.logs)
        time.sleep(0.05)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310 -- http
            return True
    except OSError:  # not listening yet, or not ready
        return False


def _load(server: Container, bundle: Bundle, seconds: float) -> None:
    """Send batches of images from several clients at once, and classify the codes."""
    height, width = bundle.manifest.model.image_height, bundle.manifest.model.image_width
    images = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8)
    address = f"{server.address}:8080"
    end = time.monotonic() + seconds

    def send() -> None:
        while time.monotonic() < end:
            ask(address, images)

    clients = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def _memory_mib(server: Container, field: str) -> float:
    """Return a field of the server's ``/proc/PID/status``, read on the host."""
    status = Path(f"/proc/{server.inspect('{{.State.Pid}}')}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def _size_mb(podman: Podman, image: str) -> float:
    return int(podman("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e6


if __name__ == "__main__":
    main()
