"""Tests import heavy libraries only if they need them, and find them configured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = ("lightning", "torch", "onnx", "onnx_ir", "onnxruntime", "openvino", "modelopt")
TESTS = "tests/unit/codec/test_payload.py::test_a_payload_has_its_golden_bytes"
RUN = f"""
import sys
import pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", {TESTS!r}])
print("imported:", *sorted(set({HEAVY}) & set(sys.modules)))
import torch
print("threads:", torch.get_num_threads())
print("telemetry:", sys.modules["openvino_telemetry"])
sys.exit(status)
"""


def test_heavy_libraries_are_imported_late_and_find_themselves_configured() -> None:
    # In a separate process: another test may have imported a library or changed its threads.
    finished = subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[-3:] == ["imported:", "threads: 1", "telemetry: None"]
