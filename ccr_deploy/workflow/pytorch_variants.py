"""The ways to run a stage in PyTorch that a benchmark times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ccr_deploy.backends.pytorch.options import PyTorchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ccr_deploy.core.precisions import EnginePrecision
    from ccr_deploy.core.stages import Stage

EAGER = "PyTorch eager"
_CUDA_GRAPH = "PyTorch FP16 CUDA graph"


def pytorch_variants(stages: Sequence[Stage], *, on_gpu: bool, threads: int = 0) -> dict[str, PyTorchOptions]:
    """Return the options of each way to run stages in PyTorch, by its name in results.

    The first is PyTorch as users run it, eagerly in FP32, which speed-ups are relative to. On a GPU others
    follow: `torch.compile`, and the strongest forms that a user could write, in FP16 as a CUDA graph. Only
    the encoder alone is timed in both orders of its iterations.

    Args:
        stages: the stages that run one after the other.
        on_gpu: whether they run on the GPU.
        threads: the number of threads on a CPU.
    """
    if not on_gpu:
        return {EAGER: PyTorchOptions(threads=threads)}
    as_users_run_it = PyTorchOptions(device="cuda", tf32=True)  # PyTorch's own default
    compiled = replace(as_users_run_it, compile_mode="max-autotune")
    graph = PyTorchOptions(device="cuda", fp16_cuda_graph="layer-major")
    is_encoder = tuple(stages) == ("encoder",)
    order = f" {graph.fp16_cuda_graph}" if is_encoder else ""
    variants = {
        EAGER: as_users_run_it,
        f"torch.compile {compiled.compile_mode}": compiled,
        f"{_CUDA_GRAPH}{order}": graph,
        f"{_CUDA_GRAPH}{order}, torch.compile {compiled.compile_mode}": replace(
            graph, compile_mode=compiled.compile_mode
        ),
    }
    if is_encoder:
        variants[f"{_CUDA_GRAPH} iteration-major"] = replace(graph, fp16_cuda_graph="iteration-major")
    return variants


def pytorch_gates(*, on_gpu: bool) -> tuple[EnginePrecision, ...]:
    """Return the precisions whose gates the answers of PyTorch have to pass.

    On a GPU, PyTorch computes in TF32 or FP16, which have mantissas of 10 bits.
    """
    return ("fp16",) if on_gpu else ("fp32",)
