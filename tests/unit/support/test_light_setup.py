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
sys.exit(status)
"""


def test_payload_tests_import_no_heavy_library() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[-1] == "imported:"


def test_torch_has_one_thread_and_openvino_no_telemetry() -> None:
    import torch

    assert torch.get_num_threads() == 1
    assert sys.modules["openvino_telemetry"] is None
