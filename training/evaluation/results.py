"""Results of evaluations, as they are written to JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ccr_deploy.benchmarking.results import Contention, MachineState
from ccr_deploy.core.atomic import write_atomically, writing
from ccr_deploy.core.metrics import Interval
from ccr_deploy.core.records import Record, parse_versioned_json, to_json
from ccr_deploy.core.untrusted import MAX_RESULT_BYTES, MAX_RESULT_VALUES, read_bytes, reading
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.models.config import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
CHECKPOINT_FILE = "checkpoint.pt"
EVALUATION_FILE = "evaluation.json"
RESTORATION_FILE = "restoration.json"
GRID_FILE = "restored.png"
_REMEDY = "run python -m training evaluate again"
_Kind = TypeVar("_Kind", "Evaluation", "Restoration")


class IterationAccuracy(Record, frozen=True, kw_only=True):
    """Accuracy and cost of a checkpoint that runs with one T.

    Attributes:
        iterations: the number of iterations T.
        is_trained: whether the checkpoint was trained with this T.
        top1_percent: top-1 accuracy in percent.
        top1_interval_percent: its 95 % interval, bootstrapped over groups.
        top5_percent: top-5 accuracy in percent.
        payload_bytes: size of one payload: header, CRC and one packed code, or T codes of a baseline.
        encoder_macs: multiply-accumulates of the encoder for one image, without repeated work.
        classifier_macs: those of the classifier; of a baseline, those of decoder and ResNet-18.
        latency_ms_p50: median time of one image in ms, in PyTorch; None if it was not measured.
        latency_ms_p50_interval: its 95 % interval, bootstrapped over rounds.
        top1_hits: for each image, 1 if the class with the largest logit is right, otherwise 0.
    """

    iterations: int
    is_trained: bool
    top1_percent: float
    top1_interval_percent: Interval
    top5_percent: float
    payload_bytes: int
    encoder_macs: int
    classifier_macs: int
    latency_ms_p50: float | None
    latency_ms_p50_interval: Interval | None
    top1_hits: tuple[int, ...]


class LatencyConditions(Record, frozen=True, kw_only=True):
    """How latencies were measured: batch 1, all T interleaved, in PyTorch.

    Attributes:
        device: the processor or GPU.
        threads: the number of threads of PyTorch.
        rounds: the number of rounds; each times every T.
        machine: the machine, and its state before the start.
        contention: CPU time that others took in the meantime.
        unreliable_reasons: why the latencies are unreliable; empty if they are reliable.
    """

    device: str
    threads: int
    rounds: int
    machine: MachineState
    contention: Contention
    unreliable_reasons: tuple[str, ...]


class Evaluation(Record, frozen=True, kw_only=True):
    """The evaluation of one checkpoint on one set of test images.

    Attributes:
        schema_version: the version of this record.
        created_by: the program and its version.
        weights_sha256: digest of the checkpoint's tensors.
        config: the architecture.
        trained_iterations: every T that the checkpoint was trained with.
        parameters: the number of parameters.
        data: name of the test data, for people.
        images: number of images.
        images_sha256: digest of the images and their labels, in order.
        image_groups: the number of each image's group; images of one group are correlated.
        per_iteration: accuracy and cost with each T.
        latency: how latencies were measured; None if they were not.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str
    weights_sha256: str
    config: ModelConfig
    trained_iterations: tuple[int, ...]
    parameters: int
    data: str
    images: int
    images_sha256: str
    image_groups: tuple[int, ...]
    per_iteration: tuple[IterationAccuracy, ...]
    latency: LatencyConditions | None

    def __post_init__(self) -> None:
        lengths = {len(self.image_groups), *(len(entry.top1_hits) for entry in self.per_iteration)}
        if lengths != {self.images} or self.images < 1:
            raise ValueError(f"{self.images} images need as many groups and hits for each T")

    @property
    def groups(self) -> int:
        """The number of groups of correlated images."""
        return len(set(self.image_groups))

    def at(self, iterations: int) -> IterationAccuracy | None:
        """Return accuracy and cost with one T; None if it was not evaluated."""
        return next((entry for entry in self.per_iteration if entry.iterations == iterations), None)


class IterationQuality(Record, frozen=True, kw_only=True):
    """How well images are restored after one iteration; means over the images.

    Attributes:
        iteration: the iteration, from 1.
        l1: absolute difference of pixel values in 0..1.
        psnr_db: peak signal-to-noise ratio in dB.
        ms_ssim: multi-scale structural similarity, at most 1.
    """

    iteration: int
    l1: float
    psnr_db: float
    ms_ssim: float


class Restoration(Record, frozen=True, kw_only=True):
    """The quality of a compressor's restored images.

    Attributes:
        schema_version: the version of this record.
        created_by: the program and its version.
        data: name of the test data, for people.
        images: number of images.
        image_height: in pixels.
        image_width: in pixels.
        code_bytes: size of one packed code; after t iterations, t codes were sent.
        ms_ssim_scales: the number of scales of MS-SSIM.
        per_iteration: the quality after each iteration.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str
    data: str
    images: int
    image_height: int
    image_width: int
    code_bytes: int
    ms_ssim_scales: int
    per_iteration: tuple[IterationQuality, ...]


def write_result(result: Evaluation | Restoration, path: Path) -> None:
    """Write a result as JSON; the file is replaced in one step.

    Raises:
        CcrDeployError: if the file cannot be written.
    """
    with writing(path, CcrDeployError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{to_json(result)}\n".encode())


def read_result(kind: type[_Kind], path: Path) -> _Kind:
    """Read a result that `write_result` wrote.

    Raises:
        CcrDeployError: if the file does not exist, is damaged or has another schema version.
    """
    with reading(path, CcrDeployError, f": {_REMEDY}"):
        text = read_bytes(path, MAX_RESULT_BYTES)
    return parse_versioned_json(
        kind,
        text,
        path,
        version=SCHEMA_VERSION,
        error=CcrDeployError,
        remedy=_REMEDY,
        max_values=MAX_RESULT_VALUES,
    )
