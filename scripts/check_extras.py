"""Install every extra by itself into a fresh environment, and check that it does what it is for.

::

    python -m scripts.check_extras [EXTRA ...]

The wheel is built once. For each extra, uv creates an environment with the oldest Python that the extra
supports, installs the wheel with this extra alone, and runs a short program that uses what the extra is
for, then `ccr-deploy doctor`. The environment is removed before the next one is created. The extras whose
libraries are on NVIDIA's index alone are only resolved. The exit status is 1 if an extra fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.extras import FROM_NVIDIA, ROOT, extras, oldest_python

UV = Path(sys.prefix) / "bin" / "uv"
_ONNX_RUNTIME = "import onnxruntime; assert 'CPUExecutionProvider' in onnxruntime.get_available_providers()"
# Loading needs an NVIDIA driver; the module and the library with the provider are what the extra brings.
_CUDA_PROVIDER = (
    "import onnxruntime, pathlib; import cuda.bindings.driver\n"
    "folder = pathlib.Path(onnxruntime.__file__).parent / 'capi'\n"
    "assert 'CUDAExecutionProvider' in onnxruntime.get_available_providers()\n"
    "assert (folder / 'libonnxruntime_providers_cuda.so').is_file()"
)
_TENSORRT_BACKEND = (
    "import cuda.core, ccr_deploy.backends.tensorrt.backend, ccr_deploy.backends.tensorrt.runner"
)
PROGRAMS = {
    "onnx": _ONNX_RUNTIME,
    "cpu": _ONNX_RUNTIME,
    "cuda": _CUDA_PROVIDER,
    "cuda12": _CUDA_PROVIDER,
    "openvino": "import openvino; assert 'CPU' in openvino.Core().available_devices",
    "export": "import ccr_deploy.export.exporter, ccr_deploy.backends.pytorch.runner, onnxscript",
    "precision": "import modelopt.onnx.quantization, modelopt.onnx.autocast",
    "train": "import lightning, skimage.data, torchmetrics",
    "tensorrt-system": f"import polygraphy; {_TENSORRT_BACKEND}",
    "rtx": (
        "import os; os.environ['POLYGRAPHY_USE_TENSORRT_RTX'] = '1'\n"
        f"import tensorrt_rtx, polygraphy.backend.trt; {_TENSORRT_BACKEND}\n"
        "assert tensorrt_rtx.Builder(tensorrt_rtx.Logger())"
    ),
    "video": "import cv2, ccr_deploy.data.video; assert cv2.VideoCapture().isOpened() is False",
    "serve": "import ccr_deploy.serving.server",
    "kubernetes": "import yaml, ccr_deploy.packaging.kubernetes.folder",
    "loadgen": "import mlperf_loadgen; assert mlperf_loadgen.TestScenario.Server",
    "report": "import jinja2, matplotlib.pyplot, ccr_deploy.reporting.html, ccr_deploy.reporting.plots",
}
"""The program for each extra."""


def problem(extra: str, wheel: Path, folder: Path) -> str:
    """Return the error of an extra; empty if it works.

    Args:
        extra: the extra, one of those in pyproject.toml.
        wheel: the package's wheel.
        folder: the environment's folder, which does not exist yet.
    """
    requirement = f"ccr-deploy[{extra}] @ {wheel.as_uri()}"
    if extra in FROM_NVIDIA:
        command = [str(UV), "pip", "compile", "--quiet", "--output-file", "/dev/null", "--python-version"]
        return _failure([*command, oldest_python(extra), "-"], requirement)
    python = folder / "bin" / "python"
    for command in (
        [str(UV), "venv", "--quiet", "--python", _interpreter(oldest_python(extra)), str(folder)],
        [str(UV), "pip", "install", "--quiet", "--python", str(python), requirement],
        [str(python), "-c", PROGRAMS[extra]],
        [str(python), "-m", "ccr_deploy", "doctor"],
    ):
        if failure := _failure(command):
            return failure
    return ""


def _interpreter(oldest: str) -> str:
    """Return a Python of pyenv, whose shims uv cannot run; if there is none, the version, for uv to find."""
    found = sorted(Path.home().glob(f".pyenv/versions/{oldest}.*/bin/python{oldest}"))
    return str(found[-1]) if found else oldest


def _failure(command: list[str], text: str = "") -> str:
    run = subprocess.run(command, cwd="/", input=text, capture_output=True, text=True, check=False)
    return f"{' '.join(command)[:120]}: {' '.join(run.stderr.split())[-600:]}" if run.returncode else ""


def main() -> int:
    """Print a line for each extra, and return the exit status."""
    chosen = sys.argv[1:] or list(extras())
    if unknown := {*chosen} - {*extras()}:
        print(f"not an extra of pyproject.toml: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory(prefix="ccr-deploy-extras-") as name:
        folder = Path(name)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", name]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        (wheel,) = folder.glob("*.whl")
        for extra in chosen:
            started = time.monotonic()
            environment = folder / extra
            found = problem(extra, wheel, environment)
            shutil.rmtree(environment, ignore_errors=True)
            done = "resolves" if extra in FROM_NVIDIA else "works"
            seconds = time.monotonic() - started
            print(f"{extra:<16} {seconds:5.0f} s  {f'FAILED: {found}' if found else done}", flush=True)
            failed += bool(found)
    print(f"{len(chosen)} extras, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
