"""What TensorRT-RTX's real builder compiles exported graphs to. It needs no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest
from msgspec import structs

from ccr_deploy.backends.options import Batch
from ccr_deploy.backends.tensorrt.builder import build
from ccr_deploy.backends.tensorrt.messages import BuildRequest
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.export.stage_graph import stage_graph
from ccr_deploy.models.checkpoint import build_model, untrained_checkpoint
from ccr_deploy.models.presets import preset

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.kernels import KernelListing
    from ccr_deploy.core.stages import ChainStage, Schedule

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

T = 3
FIXED, DYNAMIC = Batch((1, 8)), Batch((8,), dynamic=True)


def compiled(
    folder: Path, stage: ChainStage, schedule: Schedule | None, batch: Batch
) -> tuple[KernelListing, ...]:
    checkpoint = untrained_checkpoint(structs.replace(preset("demo"), iterations=T))
    network = build_model(checkpoint).get_submodule(stage)
    model = stage_graph(network, checkpoint.config, checkpoint.preprocessing, schedule)
    graph = folder / "graph.onnx"
    ir.save(model, graph)
    (spec,) = model.graph.inputs
    assert spec.shape is not None
    request = BuildRequest(
        graph=graph,
        engine=folder / "engine.plan",
        options=RtxOptions(compute_capabilities=("8.9",)),
        precision="fp32",
        batch=batch,
        input_shapes={str(spec.name): tuple(size for size in spec.shape[1:] if isinstance(size, int))},
        timing_cache=None,
        can_run=False,
    )
    return build(request, lambda _: None).kernels


@pytest.mark.parametrize("batch", [FIXED, DYNAMIC], ids=["fixed", "dynamic"])
def test_layer_major_encoders_have_two_kernels_for_each_step_and_no_copies(
    tmp_path: Path, batch: Batch
) -> None:
    # Normalisation, three input convolutions, gates, hidden convolutions, binarizer, packing.
    expected = 1 + 3 + 3 * T + 3 * (T - 1) + 2
    for listing in compiled(tmp_path, "encoder", "layer-major", batch):
        assert listing.kernel_count == expected
        assert "copy" not in listing.counts


def test_iteration_major_encoders_have_three_kernels_for_each_step(tmp_path: Path) -> None:
    expected = 1 + (1 + 2 * T) + 3 * T + 3 * (T - 1) + 2
    for listing in compiled(tmp_path, "encoder", "iteration-major", FIXED):
        assert listing.kernel_count == expected


def test_classifiers_need_no_copies_for_larger_batches(tmp_path: Path) -> None:
    one, eight = compiled(tmp_path, "classifier", None, FIXED)
    assert eight.kernel_count <= one.kernel_count
    assert "copy" not in eight.counts
