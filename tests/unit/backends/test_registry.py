"""The registry of backends, whose properties are available without their libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ccr_deploy.backends.base import Backend, BuiltFrom
from ccr_deploy.backends.build_facts import BuildFacts
from ccr_deploy.backends.options import BackendOptions
from ccr_deploy.backends.registry import BACKENDS, backend_class, make_backend
from ccr_deploy.backends.runner import Runner, TensorSpec
from ccr_deploy.core.field_errors import FieldError
from ccr_deploy.core.records import Record, convert, to_builtins
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
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
def test_options_are_tagged_with_the_name_of_their_backend(name: str) -> None:
    options = convert(backend_class(name).options_class, MINIMAL.get(name, {}))
    assert options.backend == name


@pytest.mark.parametrize("name", BACKENDS)
def test_options_are_read_as_the_record_of_their_backend(name: str) -> None:
    options = convert(backend_class(name).options_class, MINIMAL.get(name, {}))
    assert convert(BackendOptions, to_builtins(options)) == options
    assert type(convert(BackendOptions, to_builtins(options))) is type(options)


@pytest.mark.parametrize("content", [{}, {"backend": "none"}, {"backend": ["onnxruntime"]}, {"threads": 1}])
def test_options_of_an_unknown_backend_are_refused(content: dict[str, object]) -> None:
    names = ", ".join(sorted(BACKENDS))
    with pytest.raises(FieldError, match=f"^field backend: expected one of {names}, found"):
        convert(BackendOptions, content)


def test_backends_and_targets_load_without_any_library() -> None:
    """Simulates a machine without any of the libraries."""
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
    """The backend has no options."""


class EchoBackend(Backend):
    title = "Echo"
    suffix = ".echo"
    options_class = EchoOptions
    version = "1.0"

    def __init__(self, options: EchoOptions) -> None:
        self.options = options

    def build(self, source, engine):
        engine.write_bytes(source.graph.read_bytes())
        return BuildFacts()

    def load(self, engine):  # noqa: ARG002 -- the runner does not read the file
        return EchoRunner()


class EchoRunner(Runner):
    """Returns its inputs."""

    inputs = (TensorSpec("code", "uint8", (None, 2)),)

    def _run(self, feeds):
        return dict(feeds)

    def _close(self):
        pass


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "echo", sys.modules[__name__])
    monkeypatch.setitem(BACKENDS, "echo", "echo:EchoBackend")


@pytest.mark.usefixtures("echo")
def test_a_minimal_backend_has_the_defaults() -> None:
    """The defaults are those of a library that computes in FP32 on a CPU."""
    backend = make_backend(convert(BackendOptions, {"backend": "echo"}))
    assert (backend.name, backend.bound_version, backend.int8_weight_bits) == ("echo", "1.0", 8)
    assert not backend.options.uses_gpu
    backend.check_builds_here()
    backend.check_precision("fp32")
    with pytest.raises(EngineError, match="Echo does not support INT8: choose FP32"):
        backend.check_precision("int8")
    built = BuiltFrom(backend.options, "fp32", None, None, Path, {})
    with pytest.raises(WrongUsageError, match="built by echo: Echo has no command-line tools"):
        backend.reproduction(Path("engine"), built)


@pytest.mark.usefixtures("echo")
def test_a_minimal_backend_is_built_stored_found_and_run(tiny_bundle, tmp_path: Path) -> None:
    target = tmp_path / "echo.toml"
    target.write_text('description = "an echo"\nbackend = "echo"\n')
    factory = EngineFactory(tiny_bundle, str(target), EngineStore(tmp_path / "engines"))
    engine, built_now = factory.build("classifier")
    assert (built_now, factory.build("classifier")[1]) == (True, False)
    assert engine.sidecar.origin.resolved_target.options == EchoOptions()
    code = np.arange(6, dtype=np.uint8).reshape(3, 2)
    with factory.load(factory.find("classifier")) as runner:
        np.testing.assert_array_equal(runner.infer({"code": code})["code"], code)
    with pytest.raises(EngineError, match="the runner is closed"):
        runner.infer({"code": code})
