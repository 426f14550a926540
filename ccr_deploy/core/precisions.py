"""The precisions that graphs and engines have."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
"""How a graph computes."""

EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]
"""How an engine computes. BF16 has no graph of its own: a backend that has it runs the FP32 graph so."""
