"""Triton's payload step in a repository, with a replacement for the library that Triton provides."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.packaging.triton.package import package_triton

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

Request = dict[str, Any]
INITIALIZED_ALONE = """
import json, sys, types
before = set(sys.modules)
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
sys.path.insert(0, sys.argv[1])
import model
model.TritonPythonModel().initialize({})
import ccr_deploy
imported = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
print(json.dumps([ccr_deploy.__file__, sorted(imported)]))
"""


class TritonError(Exception):
    """An error with a code, as Triton's."""

    INVALID_ARG = "invalid"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def tensor(name: str, array: npt.NDArray[Any]) -> Any:
    return SimpleNamespace(name=name, as_numpy=lambda: array)


def response(tensors: list[Any] | None = None, error: TritonError | None = None) -> Any:
    codes = [found.as_numpy() for found in tensors or []]
    return SimpleNamespace(codes=codes, error=error)


@pytest.fixture
def folder(tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path) -> Path:
    """The first version of the model ``payload`` of a new repository."""
    package_triton(tiny_bundle, "cpu", built_store, tmp_path / "repository")
    return tmp_path / "repository" / "payload" / "1"


@pytest.fixture
def step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model, initialized."""
    library: Any = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request.get(name),
        TritonError=TritonError,
        InferenceResponse=response,
        Tensor=tensor,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", library)
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which the step adds its folder
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({})
    return model


def request_of(array: npt.NDArray[Any]) -> Request:
    return {"payload": tensor("payload", array)}


def test_an_invalid_request_fails_alone(step: Any, tiny_bundle: Bundle) -> None:
    contract = tiny_bundle.manifest.contract
    code = np.arange(contract.code_bytes, dtype=np.uint8)
    payload = encode_payload(code, contract)
    good = request_of(np.array([[payload]], dtype=np.object_))
    wrong: dict[str, Request] = {
        "none": {},
        "[0, 1]": request_of(np.empty((0, 1), np.object_)),
        "[0]": request_of(np.empty(0, np.object_)),
        "object [1]": request_of(np.array([payload], dtype=np.object_)),
        "[1, 2]": request_of(np.array([[payload, payload]], dtype=np.object_)),
        "[]": request_of(np.array(payload, dtype=np.object_)),
        "float32 [1, 1]": request_of(np.zeros((1, 1), np.float32)),
        "CRC-32": request_of(np.array([[payload[:-1] + bytes([payload[-1] ^ 1])]], dtype=np.object_)),
    }
    answers = step.execute([good, *wrong.values(), good])
    assert len(answers) == len(wrong) + 2
    for answer in (answers[0], answers[-1]):
        assert answer.error is None
        np.testing.assert_array_equal(answer.codes, [code[None]])
    for found, answer in zip(wrong, answers[1:-1], strict=True):
        assert answer.error.code == TritonError.INVALID_ARG
        assert found in str(answer.error)


def test_the_payload_step_needs_only_numpy_and_the_files_beside_it(folder: Path) -> None:
    program = [sys.executable, "-B", "-c", INITIALIZED_ALONE, str(folder)]
    finished = subprocess.run(program, capture_output=True, text=True, check=True)
    package, imported = json.loads(finished.stdout)
    assert package == str(folder / "ccr_deploy" / "__init__.py")
    assert imported == ["ccr_deploy", "model", "numpy", "triton_python_backend_utils"]
