"""The backends by name: what is known of each without its library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ccr_deploy.backends.base import Backend, BuiltFrom
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.registry import BACKENDS, backend_class, make_backend
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import Record, convert, to_builtins
from ccr_deploy.errors import EngineError, WrongUsageError

LIBRARIES = (
    "onnxruntime",
    "openvino",
    "torch",
    "safetensors",
    "tensorrt",
    "tensorrt_rtx",
    "polygraphy",
    "cuda",
)
MINIMAL = {"tensorrt-rtx": {"compute_capabilities": ["8.6"]}}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_s_options_are_tagged_by_its_name(name: str) -> None:
    options = convert(backend_class(name).options_class, MINIMAL.get(name, {}))
    assert options.backend == name


@pytest.mark.parametrize("name", BACKENDS)
def test_options_come_back_as_their_own_kind(name: str) -> None:
    options = convert(backend_class(name).options_class, MINIMAL.get(name, {}))
    assert convert(BackendOptions, to_builtins(options)) == options
    assert type(convert(BackendOptions, to_builtins(options))) is type(options)


@pytest.mark.parametrize("content", [{}, {"backend": "none"}, {"backend": ["onnxruntime"]}, {"threads": 1}])
def test_options_of_no_backend_are_refused(content: dict[str, object]) -> None:
    names = ", ".join(sorted(BACKENDS))
    with pytest.raises(FieldError, match=f"^field backend: expected one of {names}, found"):
        convert(BackendOptions, content)


def test_all_is_known_without_a_library() -> None:
    """As on a machine that has none of them."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({LIBRARIES!r}))\n"
        "from ccr_deploy.backends.registry import BACKENDS, backend_class\n"
        "from ccr_deploy.targets.schema import load_target, target_files\n"
        "for name in BACKENDS: print(backend_class(name).title)\n"
        "for name in target_files(): print(load_target(name).uses_gpu)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


class EchoOptions(Record, BackendOptions, frozen=True, tag_field="backend", tag="echo"):
    """None of its own."""


class EchoBackend(Backend):
    title = "Echo"
    suffix = ".echo"
    options_class = EchoOptions
    version = "1.0"

    def __init__(self, options: EchoOptions) -> None:
        self.options = options

    def build(self, source, engine):
        raise NotImplementedError

    def load(self, engine):
        raise NotImplementedError


def test_a_backend_of_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the base knows of a library that computes in FP32 on a CPU."""
    monkeypatch.setitem(sys.modules, "echo", sys.modules[__name__])
    monkeypatch.setitem(BACKENDS, "echo", "echo:EchoBackend")
    backend = make_backend(convert(BackendOptions, {"backend": "echo"}))
    assert (backend.name, backend.bound_version, backend.int8_weight_bits) == ("echo", "1.0", 8)
    assert not backend.options.uses_gpu
    backend.check_builds_here()
    backend.check_precision("fp32")
    with pytest.raises(EngineError, match="Echo has no INT8: choose FP32"):
        backend.check_precision("int8")
    built = BuiltFrom(backend.options, "fp32", None, None, Path, {})
    with pytest.raises(WrongUsageError, match="built by echo: Echo has no tools"):
        backend.reproduction(Path("engine"), built)
