"""Measure the choices behind FP16 and INT8 graphs, in flipped bits of a trained encoder.

``python -m benchmarks.precision_choices build/demo`` (after ``make demo``) converts the demo's encoder in
several ways, runs its test crops, and writes ``benchmarks/results/precision-choices.json``:

- FP16: all in FP16; normalisation in FP32; the uint8 I/O in FP32, which is what `export` does; the
  binarizer's convolution in FP32 too;
- INT8: one activation scale for all iterations, which is what `calibrate` does, or one for each; each way
  of finding ranges; the stem and the binarizer quantized or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import onnx_ir as ir

from benchmarks.scaffold import publish
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.metrics import flipped_bits
from ccr_deploy.core.records import Record
from ccr_deploy.models.family import HIGH_PRECISION_LAYERS, UINT8_IO
from ccr_deploy.quantization.emulation import emulate
from ccr_deploy.quantization.fp16 import cast
from ccr_deploy.quantization.int8 import quantize, without_quantization
from ccr_deploy.quantization.quantizers import layers
from ccr_deploy.quantization.ranges import RangeCollector
from ccr_deploy.quantization.table import INT8_MAX, StageTable, TensorRange
from ccr_deploy.quantization.value_limit import nodes_beyond_limit
from ccr_deploy.reporting.table import Table
from ccr_deploy.workflow.calibrated_graphs import CalibratedGraphs
from ccr_deploy.workflow.graphs import load_model, model_runner
from ccr_deploy.workflow.images import image_set
from ccr_deploy.workflow.precision_cost import BATCH

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.quantization.recipe import Method

METHODS: tuple[tuple[Method, float], ...] = (
    ("minmax", 100),
    ("entropy", 100),
    ("percentile", 99.99),
    ("percentile", 99.9),
)


class Choice(Record, frozen=True):
    """One conversion of the encoder, and its flipped bits."""

    precision: str
    choice: str
    flipped_bits: int
    flipped_percent: float
    equal_payloads: int


class PrecisionChoices(Record, frozen=True):
    """All conversions, measured on the same crops."""

    schema_version: int
    images: int
    bits: int
    choices: tuple[Choice, ...]


class _Encoder:
    """The demo's FP32 encoder, with which conversions are compared."""

    def __init__(self, demo: Path) -> None:
        self.bundle = Bundle.open(demo / "bundle")
        self.model = load_model(self.bundle, CalibratedGraphs(self.bundle).calibration_graph("encoder"))
        self.images = np.concatenate(list(image_set(self.bundle, demo / "images").batches))
        self.calibration = np.concatenate(list(image_set(self.bundle, demo / "calibration").batches))
        self.samples = np.concatenate(list(image_set(self.bundle, None).batches))
        self.codes = self._run(self.model)

    def choice(self, precision: str, name: str, model: ir.Model) -> Choice:
        # The INT8 graphs here are FP32 with Q/DQ pairs, whose effect is measured alone.
        graph = emulate(model, "fp16") if precision == "FP16" else model
        flips = flipped_bits(self.codes, self._run(graph))
        return Choice(
            precision=precision,
            choice=name,
            flipped_bits=int(flips.sum()),
            flipped_percent=round(100 * float(flips.mean()), 4),
            equal_payloads=int((~flips.any(axis=1)).sum()),
        )

    def _run(self, model: ir.Model) -> npt.NDArray[np.uint8]:
        with model_runner(model) as runner:
            return runner.infer({"image": self.images})["code"].astype(np.uint8, copy=False)


@click.command()
@click.argument("demo", type=click.Path(path_type=Path))
def main(demo: Path) -> None:
    """Measure every choice on the demo in the folder DEMO, and write the result beside this script."""
    encoder = _Encoder(demo)
    result = PrecisionChoices(
        schema_version=1,
        images=len(encoder.codes),
        bits=8 * encoder.codes.size,
        choices=(*_fp16_choices(encoder), *_int8_choices(encoder)),
    )
    publish("precision-choices", result, choices_table(result))


def choices_table(result: PrecisionChoices) -> Table:
    """Return the table, one row per choice."""
    return Table(
        title="Choices",
        columns=("choice", "bits flipped", "payloads equal"),
        rows=tuple(
            (
                f"{entry.precision}: {entry.choice}",
                f"{entry.flipped_bits} ({entry.flipped_percent:.3f} %)",
                f"{entry.equal_payloads} of {result.images}",
            )
            for entry in result.choices
        ),
        note=f"the demo's encoder, {result.images} test crops, {result.bits} bits",
    )


def _fp16_choices(encoder: _Encoder) -> list[Choice]:
    kept = {
        "all in FP16": (),
        "normalisation in FP32": ("normalise",),
        "uint8 I/O in FP32 (as exported)": UINT8_IO,
        "uint8 I/O and binarizer in FP32": (*UINT8_IO, "binarizer"),
    }
    nodes = [node.name or "" for node in encoder.model.graph]
    beyond_limit = nodes_beyond_limit(encoder.model, {"image": encoder.samples})
    return [
        encoder.choice(
            "FP16",
            name,
            cast(
                encoder.model,
                [*(node for node in nodes if node.partition("/")[0] in prefixes), *beyond_limit],
            ),
        )
        for name, prefixes in kept.items()
    ]


def _int8_choices(encoder: _Encoder) -> list[Choice]:
    tables = {
        " ".join((method, f"{percentile:g}" if method == "percentile" else "")).strip(): _find_table(
            encoder.model, encoder.calibration, method, percentile
        )
        for method, percentile in METHODS
    }
    chosen = tables["percentile 99.99"]
    quantized = quantize("encoder", encoder.model, chosen)
    nothing_kept = [
        encoder.choice("INT8", f"everything quantized, {name}", quantize("encoder", encoder.model, table))
        for name, table in tables.items()
    ]
    kept = {
        "but the stem": ("stem",),
        "but the binarizer": ("binarizer",),
        "but stem and binarizer (as calibrated)": HIGH_PRECISION_LAYERS,
        "but all hidden convolutions": tuple(
            name for name in layers(encoder.model) if name.endswith("hidden_conv")
        ),
    }
    return [
        *nothing_kept,
        encoder.choice(
            "INT8", "everything quantized, a scale for each iteration", _scale_each(quantized, chosen)
        ),
        *(
            encoder.choice("INT8", f"everything {name}", without_quantization(quantized, left))
            for name, left in kept.items()
        ),
    ]


def _find_table(
    model: ir.Model, images: npt.NDArray[np.uint8], method: Method, percentile: float
) -> StageTable:
    with RangeCollector(model, method, percentile) as collector:
        for start in range(0, len(images), BATCH):
            collector.add(images[start : start + BATCH])
        ranges = collector.ranges()
    tensors = {
        name: TensorRange(low=found.low, high=found.high, method=method) for name, found in ranges.items()
    }
    return StageTable(tensors=tensors)


def _scale_each(quantized: ir.Model, table: StageTable) -> ir.Model:
    """Return the graph with a scale for every activation instead of one per signal."""
    model = ir.from_proto(ir.to_proto(quantized))
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "DequantizeLinear" and source is not None:
            producer = source.producer()
            source = producer.inputs[0] if producer is not None else None
        elif node.op_type != "QuantizeLinear":
            continue
        if source is None or source.name not in table.tensors:
            continue
        scale = np.float32(table.tensors[source.name].magnitude / INT8_MAX)
        name = f"{source.name}/own_scale"
        value = model.graph.initializers.get(name) or ir.val(name, const_value=ir.tensor(scale, name=name))
        model.graph.initializers[name] = value
        node.replace_input_with(1, value)
    return model


if __name__ == "__main__":
    main()
