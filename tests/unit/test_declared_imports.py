"""Every third-party module that the package imports is declared in pyproject.toml, by the extra it is for."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomllib
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ccr_deploy"
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cuda.bindings": "cuda-python",
    "cuda.core": "cuda-core",
    "cv2": "opencv-python-headless",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "mlperf_loadgen": "mlcommons-loadgen",
    "modelopt": "nvidia-modelopt",
    "yaml": "pyyaml",
}
"""The distributions whose module has another name; `_` and `-` count as one."""
ALTERNATIVES = {"onnxruntime": {"onnxruntime", "onnxruntime-gpu"}}
"""Distributions that own one module."""
NAMESPACES = ("cuda", "google")
"""Modules that several distributions share: the second part of the name decides."""
TENSORRT = ("tensorrt", "tensorrt-cu12", "tensorrt-system", "rtx")
ONNX_RUNTIME = ("onnx", "cpu", "cuda", "cuda12")
EXTRAS = {
    "backends/onnxruntime/int8.py": (
        "export",
    ),  # onnx-ir, only if a graph needs ONNX Runtime's defect avoided
    "backends/onnxruntime/": ONNX_RUNTIME,
    "backends/openvino/": ("openvino",),
    "backends/pytorch/": ("export",),
    "backends/tensorrt/": TENSORRT,
    "bundle/": ("export",),
    "benchmarking/scenarios/loadgen.py": ("loadgen",),
    "benchmarking/gpu_sensors.py": (*TENSORRT, "cuda", "cuda12"),
    "core/gpu.py": (*TENSORRT, "cuda", "cuda12"),
    "data/video.py": ("video",),
    "export/": ("export",),
    "graphs/": ("export",),
    "models/": ("export",),
    "packaging/kubernetes/": ("kubernetes",),
    "quantization/": ("precision+export+onnx",),
    "reporting/": ("report",),
    "serving/": ("serve",),
    "workflow/": ("export+onnx",),
}
"""The extras for each part of the package: each alone has to suffice, and `+` joins extras."""
PROVIDED_BY_TRITON = {"triton_python_backend_utils"}


def project() -> dict[str, list[str]]:
    """The requirements of each extra; those of the package itself under the empty name."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def declared(extras: str) -> set[str]:
    requirements = project()
    return {Requirement(line).name for extra in ("", *extras.split("+")) for line in requirements[extra]}


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that code imports when it runs, wherever it does."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module or ""
        else:
            yield from imported(child)


def third_party(path: Path) -> set[str]:
    found = set()
    for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
        top = module.split(".")[0]
        if top not in {*sys.stdlib_module_names, *PROVIDED_BY_TRITON, "ccr_deploy"}:
            found.add(".".join(module.split(".")[: 2 if top in NAMESPACES else 1]))
    return found


def distributions(module: str) -> set[str]:
    """The distributions of which one has to be declared."""
    name = DISTRIBUTIONS.get(module, module).replace("_", "-")
    return ALTERNATIVES.get(name, {name})


def extras_for(path: Path) -> tuple[str, ...]:
    """The extras that each have to declare a module's imports; `""` if the dependencies have to."""
    inside = path.relative_to(PACKAGE).as_posix()
    return next((extras for part, extras in EXTRAS.items() if inside.startswith(part)), ("",))


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if third_party(path)],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_imports_are_declared(path: Path) -> None:
    missing = [
        f"{module}: declare it in {extras or 'dependencies'}"
        for module in sorted(third_party(path))
        for extras in extras_for(path)
        if not distributions(module) & declared(extras)
    ]
    assert missing == []


def test_an_undeclared_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def late():\n    import google.protobuf.message, undeclared.part\n")
    assert third_party(tmp_path / "module.py") == {"google.protobuf", "undeclared"}
    assert not distributions("undeclared") & declared("serve")
    assert distributions("google.protobuf") <= declared("serve")
    assert not distributions("google.protobuf") & declared("report")


def test_kserve_has_an_upper_bound() -> None:
    """Because names of it that are not public are used."""
    (kserve,) = (Requirement(line) for line in project()["serve"] if line.startswith("kserve"))
    assert any(bound.operator == "<" for bound in kserve.specifier)
