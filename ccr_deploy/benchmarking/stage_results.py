"""The results of a chain from image file to label, as they are written to JSON."""

from __future__ import annotations

from typing import Literal

from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record

ChainStep = Literal["decode", "resize", "encoder", "payload", "payload read", "classifier", "label"]
"""The steps from an image file to a label, in the order in which they run.

The camera runs those from `decode` to `payload`, the server the others; the payload is sent in between.
"""

EnergySource = Literal["NVML", "RAPL", "INA3221"]
"""What measured the energy: the GPU's driver, the processor's counters, or a Jetson's power rails."""


class StepTime(Record, frozen=True):
    """The wall-clock time of one step for one image, of the sum of all steps or of the chain.

    Intervals are 95 % ones. `samples_ms` are the raw samples, one tuple for each round.
    """

    step: ChainStep | Literal["sum", "chain"]
    latency_ms_p50: float
    latency_ms_p50_interval: Interval
    latency_ms_p99: float
    latency_ms_p99_interval: Interval
    samples_ms: tuple[tuple[float, ...], ...]


class ImageBytes(Record, frozen=True):
    """The mean size of one image: its file, its pixels as the encoder reads them, and its payload."""

    file: float
    pixels: int
    payload: int


class StartUp(Record, frozen=True):
    """Starts of new processes, up to the first answer; the files that they read are in the page cache.

    Each list has one value for each process. `imports_ms` are the start of the interpreter and the imports,
    `load_ms` loading both engines, `first_answer_ms` the first image from file to label. `page_cache` says
    whether the files were read before.
    """

    page_cache: Literal["warm"]
    imports_ms: tuple[float, ...]
    load_ms: tuple[float, ...]
    first_answer_ms: tuple[float, ...]
    total_ms: tuple[float, ...]


class Energy(Record, frozen=True):
    """The energy of one image from file to label; `source` is None if it was not measured, for `reason`.

    `covers` names what the source measures, such as the processor or the whole GPU. `idle_watts` is its mean
    power while the loaded engines wait, `watts` while they run. `joules_per_image` is the gross energy,
    `net_joules_per_image` that without the idle power.
    """

    source: EnergySource | None
    reason: str = ""
    covers: str = ""
    images: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    watts: float | None = None
    idle_watts: float | None = None
    joules_per_image: float | None = None
    net_joules_per_image: float | None = None


class EndToEnd(Record, frozen=True):
    """The chain from image file to label in one process, through the library that a product calls.

    `images` describes the image files. `steps` are the times between the steps of one run. `sum` is the sum
    of the steps of each run, `chain` the time of other runs without time stamps in between; both were timed
    in turn. `unaccounted_ms` is the median of `chain` minus that of `sum`. Memory is the peak of the process,
    and its memory on the GPU, None on a CPU.
    """

    images: str
    image_count: int
    steps: tuple[StepTime, ...]
    sum: StepTime
    chain: StepTime
    unaccounted_ms: float
    unaccounted_ms_interval: Interval
    image_bytes: ImageBytes
    peak_memory_mib: float
    device_memory_mib: float | None
    start_up: StartUp
    energy: Energy
