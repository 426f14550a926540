"""Measure INT8 in OpenVINO with and without VNNI: flipped bits, logits and speed, by weight bits.

``python -m benchmarks.int8_saturation`` exports untrained weights of ``ccr-layer1`` at 224x224, T=8,
calibrates, and compiles the INT8 graphs with weights of 8 and 7 bits, in processes whose instruction sets are
limited by ``ONEDNN_MAX_CPU_ISA``. Every engine runs interleaved with the FP32 engine. The result is written
to ``benchmarks/results/int8-saturation-ccr-layer1.json``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
from PIL import Image

from benchmarks.scaffold import (
    MODEL,
    calibrated_bundle,
    from_json,
    publish,
    temporary_folder,
    to_json,
    untrained_model,
)
from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE
from ccr_deploy.backends.openvino.cpu import OpenVinoRunner, change_before_compilation, import_openvino
from ccr_deploy.backends.openvino.int8 import read_int8_model
from ccr_deploy.backends.threads import thread_count
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import cosine_similarities, flipped_bits
from ccr_deploy.core.processor import processor_device
from ccr_deploy.core.records import Record
from ccr_deploy.reporting.table import Table

if TYPE_CHECKING:
    from ccr_deploy.core.stages import Stage

IMAGES = 32
RUNS = 15
CASES: tuple[tuple[str, Literal[7, 8]], ...] = (("ALL", 8), ("AVX2", 8), ("AVX2", 7))
"""The newest instruction set that oneDNN may use, and the bits of the weights."""


class SaturationCase(Record, frozen=True):
    """Differences of INT8 engines from FP32 engines, and their speed-up at batch 1."""

    max_isa: str
    weight_bits: Literal[7, 8]
    flipped_percent: float
    classifier_min_cosine: float
    encoder_speedup: float
    classifier_speedup: float


class SaturationBenchmark(Record, frozen=True):
    """The results of all cases on one machine."""

    schema_version: int
    model: str
    images: int
    processor: str
    cores: int
    cases: tuple[SaturationCase, ...]


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--weight-bits", type=click.Choice(["7", "8"]), help="Measure one case in this process.")
def main(bundle: Path | None, weight_bits: str | None) -> None:
    """Measure every case in a separate process; with a BUNDLE and bits, measure one case in this process."""
    if bundle and weight_bits:
        case = _measure(Bundle.open(bundle), 7 if weight_bits == "7" else 8)
        click.echo(to_json(case))
        return
    with temporary_folder() as folder:
        measured = calibrated_bundle(MODEL, folder, samples=128, held_out_samples=8)
        cases = tuple(_in_a_process(measured.path, max_isa, bits) for max_isa, bits in CASES)
    result = SaturationBenchmark(
        schema_version=1,
        model=untrained_model(MODEL, measured),
        images=IMAGES,
        processor=processor_device(),
        cores=thread_count(),
        cases=cases,
    )
    publish(f"int8-saturation-{MODEL}", result, saturation_table(result))


def saturation_table(result: SaturationBenchmark) -> Table:
    """Return the table, one row per case."""
    return Table(
        title="INT8 with and without VNNI",
        columns=("instruction sets", "weights", "bits flipped", "logits' cosine", "encoder", "classifier"),
        rows=tuple(
            (
                "all" if case.max_isa == "ALL" else f"at most {case.max_isa}",
                f"{case.weight_bits} bits",
                f"{case.flipped_percent:.2f} %",
                f"{case.classifier_min_cosine:.4f}",
                f"{case.encoder_speedup:.2f} times FP32",
                f"{case.classifier_speedup:.2f} times FP32",
            )
            for case in result.cases
        ),
        note=f"{result.model}, INT8 compared with FP32 in OpenVINO with the same instruction sets, "
        f"{result.images} images, speed at batch 1 on {result.cores} cores of {result.processor}",
    )


def _in_a_process(bundle: Path, max_isa: str, weight_bits: int) -> SaturationCase:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.int8_saturation", str(bundle), "--weight-bits", str(weight_bits)],
        env={**os.environ, MAX_ISA_VARIABLE: max_isa},
        check=True,
        stdout=subprocess.PIPE,
    )
    return from_json(finished.stdout, SaturationCase)


def _measure(bundle: Bundle, weight_bits: Literal[7, 8]) -> SaturationCase:
    files = sorted((bundle.path.parent / "images").glob("*.png"))[:IMAGES]
    images = np.stack([np.asarray(Image.open(path)) for path in files])
    fp32_codes, int8_codes, encoder_speedup = _compare(bundle, "encoder", {"image": images}, weight_bits)
    codes = fp32_codes.astype(np.uint8)
    fp32_logits, int8_logits, classifier_speedup = _compare(
        bundle, "classifier", {"code": codes}, weight_bits
    )
    return SaturationCase(
        max_isa=os.environ[MAX_ISA_VARIABLE],
        weight_bits=weight_bits,
        flipped_percent=100 * float(flipped_bits(codes, int8_codes.astype(np.uint8)).mean()),
        classifier_min_cosine=float(cosine_similarities(fp32_logits, int8_logits).min()),
        encoder_speedup=encoder_speedup,
        classifier_speedup=classifier_speedup,
    )


def _compare(
    bundle: Bundle, stage: Stage, feeds: dict[str, np.ndarray], weight_bits: Literal[7, 8]
) -> tuple[Any, Any, float]:
    """Return the outputs of FP32 and INT8, by image, and the ratio of their median times, interleaved."""
    core = import_openvino().Core()
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": thread_count(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    schedule: Literal["iteration-major"] | None = "iteration-major" if stage == "encoder" else None
    fp32 = core.read_model(bundle.file(bundle.graph(stage, "fp32", schedule).file))
    int8 = read_int8_model(core, bundle.file(bundle.graph(stage, "int8", schedule).file), weight_bits)
    change_before_compilation(fp32, "fp32")
    change_before_compilation(int8, "int8")
    runners = [OpenVinoRunner(core.compile_model(model, "CPU", config)) for model in (fp32, int8)]
    ((name, inputs),) = feeds.items()
    one_by_one = [inputs[number : number + 1] for number in range(len(inputs))]
    answers: list[list[np.ndarray]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for number in range(max(len(one_by_one), RUNS)):
        for index, runner in enumerate(runners):
            started = time.perf_counter()
            (found,) = runner.infer({name: one_by_one[number % len(one_by_one)]}).values()
            seconds[index].append(time.perf_counter() - started)
            if number < len(one_by_one):
                answers[index].append(found)
    speedup = float(np.median(seconds[0][1:]) / np.median(seconds[1][1:]))
    return np.concatenate(answers[0]), np.concatenate(answers[1]), speedup


if __name__ == "__main__":
    main()
