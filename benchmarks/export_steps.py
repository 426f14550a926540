"""The CPU time of each step of an export, in a process of its own, and its peak memory.

``python -m benchmarks.export_steps PRESET`` prints them as JSON.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from benchmarks.scaffold import from_json, temporary_folder, to_json, untrained_bundle_with_fp16
from benchmarks.scaling_results import ExportStep, ExportSteps
from ccr_deploy.core.child_process import peak_memory_mib
from ccr_deploy.core.stages import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def measure_export(name: str) -> ExportSteps:
    """Export a preset in all schedules, in FP32 and FP16, in a process of its own, and measure the steps.

    Args:
        name: the preset.
    """
    command = [sys.executable, "-m", "benchmarks.export_steps", name]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return from_json(finished.stdout, ExportSteps)


@click.command()
@click.argument("name")
def main(name: str) -> None:
    """Export a preset, and print the steps."""
    spent: dict[str, list[float]] = {}
    for step, owner, function in _functions():
        setattr(owner, function, _timed(getattr(owner, function), spent.setdefault(step, [])))
    with temporary_folder() as folder:
        started = time.process_time()
        untrained_bundle_with_fp16(name, folder, SCHEDULES)
        total = time.process_time() - started
    steps = ExportSteps(
        steps=tuple(
            ExportStep(step=step, calls=len(seconds), cpu_seconds=round(sum(seconds), 3))
            for step, seconds in spent.items()
        ),
        cpu_seconds=round(total, 3),
        peak_memory_mib=round(peak_memory_mib(), 1),
    )
    click.echo(to_json(steps))


def _functions() -> Iterable[tuple[str, Any, str]]:
    """Return each step with the function that does it: the object that holds it, and its name there."""
    import torch.export
    from torch.onnx._internal.exporter import _core

    from ccr_deploy.export import exporter, to_onnx
    from ccr_deploy.quantization import fp16, model_optimizer

    model_optimizer.autocast()  # imports it, so that no step includes the import
    return (
        ("trace the network (torch.export)", torch.export, "export"),
        ("decompose into the operators of ONNX (torch)", _core, "_prepare_exported_program_for_export"),
        ("translate to ONNX (torch)", _core, "_exported_program_to_onnx_program"),
        ("clean up the graph", to_onnx, "clean_up"),
        ("hash and write graphs", exporter, "add_graph"),
        ("run the encoder on the samples (PyTorch)", exporter, "_sample_codes"),
        ("find values near FP16's limits (ONNX Runtime)", fp16, "nodes_beyond_limit"),
        ("convert to FP16 (Model Optimizer)", fp16, "cast"),
    )


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: object, **options: object) -> object:
        started = time.process_time()
        try:
            return function(*args, **options)
        finally:
            seconds.append(time.process_time() - started)

    return timed


if __name__ == "__main__":
    main()
