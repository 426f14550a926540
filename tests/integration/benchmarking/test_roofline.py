"""The work of graphs, and the limits of this machine: `benchmark --roofline` compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from ccr_deploy.benchmarking.machine_limits import measure_limits
from ccr_deploy.errors import EngineError
from ccr_deploy.graphs.work import graph_work

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle


def test_plain_unrolling_computes_more_than_hoisted_work(tiny_bundle: Bundle) -> None:
    work = {
        graph.schedule: graph_work(ir.load(tiny_bundle.file(graph.file)), 2).multiply_accumulates
        for graph in tiny_bundle.manifest.graphs
        if graph.stage == "encoder"
    }
    assert work["plain"] > work["iteration-major"] == work["layer-major"]


def test_a_machine_without_a_gpu_says_so_in_one_line() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match="the memory bandwidth of this machine cannot be measured: PyTorch"):
        measure_limits(("fp32",), 1, on_gpu=True)
