"""Python source that runs a graph with OpenVINO alone, as this project's backend does."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Literal

from ccr_deploy.backends.int8_weights import MAX_ISA_VARIABLE
from ccr_deploy.backends.openvino import gates, int8

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCE = '''\
import os
import sys

os.environ["{variable}"] = "{max_isa}"  # the instruction sets that oneDNN may use; empty: all
sys.modules.setdefault("openvino_telemetry", None)  # telemetry sends a message on every import

import numpy as np
import openvino

{functions}
def run(graph, inputs):
    """Run a graph with OpenVINO on a CPU; return its outputs by name."""
    model = openvino.Core().read_model(str(graph))
{changes}    compiled = openvino.Core().compile_model(model, "CPU", {config})
    results = compiled(inputs)
    return {{output.any_name: results[output] for output in compiled.outputs}}
'''
_CLAMPS = (int8.separate_shared_scales,)
_GATES = (gates.separate_gates, gates._is_separable, gates._is_divisible, gates._part, gates._new_part)
_SEVEN_BITS = (int8.limit_weights_to_7_bits, int8.halved_integers, int8._quantized_weights)


def compile_source(config: Mapping[str, object], int8_weight_bits: Literal[7, 8] | None) -> str:
    """Return source that compiles and runs a graph.

    Args:
        config: properties for OpenVINO's compilation.
        int8_weight_bits: bits of the weights of an INT8 graph, whose changes before the compilation are
            included; None for other precisions.
    """
    is_int8 = int8_weight_bits is not None
    functions = (*(_SEVEN_BITS if int8_weight_bits == 7 else ()), *_GATES, *(_CLAMPS if is_int8 else ()))
    changes = [int8.limit_weights_to_7_bits] if int8_weight_bits == 7 else []
    changes += [gates.separate_gates, *(_CLAMPS if is_int8 else ())]
    sources = [f"\n{inspect.getsource(function)}\n" for function in functions]
    if is_int8:
        sources.insert(0, f"LARGE = {int8.LARGE!r}\n\n")
    return _SOURCE.format(
        variable=MAX_ISA_VARIABLE,
        max_isa=os.environ.get(MAX_ISA_VARIABLE, ""),
        functions="".join(sources),
        changes="".join(f"    {change.__name__}(model)\n" for change in changes),
        config=dict(config),
    )
