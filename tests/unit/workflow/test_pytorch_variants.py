"""The ways to run PyTorch that a benchmark times."""

from __future__ import annotations

from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.workflow.pytorch_variants import EAGER, pytorch_variants


def test_on_a_cpu_pytorch_runs_eagerly_with_the_target_s_threads() -> None:
    assert pytorch_variants(["encoder"], on_gpu=False, threads=3) == {EAGER: PyTorchOptions(threads=3)}


def test_on_a_gpu_pytorch_eager_is_the_first_and_runs_by_its_defaults() -> None:
    variants = pytorch_variants(["classifier"], on_gpu=True)
    assert list(variants) == [
        "PyTorch eager",
        "torch.compile max-autotune",
        "PyTorch FP16 CUDA graph",
        "PyTorch FP16 CUDA graph, torch.compile max-autotune",
    ]
    assert all(options.device == "cuda" for options in variants.values())
    eager, compiled, graph, both = variants.values()
    assert (eager.tf32, eager.compile_mode, eager.fp16_cuda_graph) == (True, None, None)
    assert (compiled.tf32, compiled.compile_mode, compiled.fp16_cuda_graph) == (True, "max-autotune", None)
    assert (graph.compile_mode, graph.fp16_cuda_graph) == (None, "layer-major")
    assert (both.compile_mode, both.fp16_cuda_graph) == ("max-autotune", "layer-major")


def test_the_encoder_alone_runs_in_both_orders_which_its_names_say() -> None:
    variants = pytorch_variants(["encoder"], on_gpu=True)
    orders = {name: options.fp16_cuda_graph for name, options in variants.items() if options.fp16_cuda_graph}
    assert orders == {
        "PyTorch FP16 CUDA graph layer-major": "layer-major",
        "PyTorch FP16 CUDA graph layer-major, torch.compile max-autotune": "layer-major",
        "PyTorch FP16 CUDA graph iteration-major": "iteration-major",
    }
    assert "iteration-major" not in " ".join(pytorch_variants(["encoder", "classifier"], on_gpu=True))
