"""A folder that shows a difference without this project: graphs, inputs, expected outputs and a script.

::

    folder/
      README.txt        what differs, and the command
      reproduce.py      runs reduced.onnx and compares its output; exit status 1 if it differs
      reduced.onnx      the graph that computes something else
      reference.onnx    the graph that gave the expected output, run node by node in ONNX Runtime
      inputs.npz        inputs of reduced.onnx
      expected.npz      its expected output
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ccr_deploy.core.atomic import atomic_folder, writing
from ccr_deploy.errors import CcrDeployError, EngineError, WrongUsageError
from ccr_deploy.verification.layers import channel_errors, channel_squares, relative_errors

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.backends.base import Standalone
    from ccr_deploy.backends.runner import Arrays

MARK = "Reduced by ccr-deploy"
"""First words of README.txt: a folder without them is not replaced."""
DIFFERS = 1
"""Exit status of the script if the output differs."""
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "numpy")

_SCRIPT = '''\
"""{mark}: {title}, tensor {tensor}.

Run `python reproduce.py`. The exit status is 1 if the output of reduced.onnx differs, 0 if it does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

{run}

import numpy as np

TOLERANCE = {tolerance!r}


{functions}
if __name__ == "__main__":
    folder = Path(__file__).parent
    (found,) = run(folder / "reduced.onnx", dict(np.load(folder / "inputs.npz"))).values()
    ((name, expected),) = np.load(folder / "expected.npz").items()
    errors = channel_errors(found, expected)
    worst = f"error {{errors.max():.4g}} in channel {{errors.argmax()}}"
    print(f"{{name}}: {{worst}}, tolerance {{TOLERANCE:g}}")
    sys.exit(0 if errors.max() <= TOLERANCE else {differs})
'''

_README = """\
{mark}: {title}

The tensor {tensor} differs by {error:.4g} in its worst channel; the tolerance is {tolerance:g}.
{weights}
Show it:    python reproduce.py
Needs:      {packages}
Found with: {versions}, Python {python}

reduced.onnx is the graph, inputs.npz its inputs, expected.npz the expected output: that of reference.onnx,
run node by node in ONNX Runtime (graph_optimization_level ORT_DISABLE_ALL).
"""


@dataclass(frozen=True)
class Reproduction:
    """What the folder is written from.

    `inputs` and `expected` are by the names of tensors in `reduced`; `standalone` has its content and the
    source that runs it.
    """

    title: str
    tensor: str
    reference: ir.Model
    reduced: ir.Model
    standalone: Standalone
    inputs: Arrays
    expected: Arrays
    error: float
    tolerance: float
    is_random: bool


def check_reproduction_folder(folder: Path) -> None:
    """Raise WrongUsageError if a folder has content that is not a reproduction."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WrongUsageError(f"{folder}: is a file: choose a folder")
    readme = folder / "README.txt"
    is_ours = readme.is_file() and readme.read_bytes().startswith(MARK.encode())
    if any(folder.iterdir()) and not is_ours:
        raise WrongUsageError(
            f"{folder}: contains files that ccr-deploy did not write: choose another folder"
        )


def write_reproduction(folder: Path, reproduction: Reproduction) -> None:
    """Write the folder, complete or not at all, after its script has shown the difference in a new process.

    Raises:
        WrongUsageError: if the folder contains other files.
        EngineError: if the script does not show the difference.
        CcrDeployError: if the folder cannot be written.
    """
    check_reproduction_folder(folder)
    with writing(folder, CcrDeployError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as new:
            (new / "reduced.onnx").write_bytes(reproduction.standalone.graph)
            ir.save(reproduction.reference, new / "reference.onnx")
            # Without `allow_pickle`, which NumPy before 2.1 would write as an array.
            np.savez(new / "inputs.npz", **reproduction.inputs)  # type: ignore[arg-type]
            np.savez(new / "expected.npz", **reproduction.expected)  # type: ignore[arg-type]
            (new / "reproduce.py").write_text(_script(reproduction), encoding="utf-8")
            (new / "README.txt").write_text(_readme(reproduction), encoding="utf-8")
            _check_script(new)


def _script(reproduction: Reproduction) -> str:
    functions = (channel_errors, channel_squares, relative_errors)
    source = _SCRIPT.format(
        mark=MARK,
        title=reproduction.title,
        tensor=reproduction.tensor,
        run=reproduction.standalone.source,
        tolerance=reproduction.tolerance,
        functions="\n\n".join(inspect.getsource(function) for function in functions),
        differs=DIFFERS,
    )
    return re.sub(r"  # noqa.*", "", source)


def _readme(reproduction: Reproduction) -> str:
    weights = (
        "Weights and inputs are random, with the scale of the trained weights and of real inputs.\n"
        if reproduction.is_random
        else "It contains trained weights and tensors of an image.\n"
    )
    return _README.format(
        mark=MARK,
        title=reproduction.title,
        tensor=reproduction.tensor,
        error=reproduction.error,
        tolerance=reproduction.tolerance,
        weights=weights,
        packages=", ".join(("numpy", *reproduction.standalone.packages)),
        versions=", ".join(_versions()),
        python=sys.version.split()[0],
    )


def _versions() -> list[str]:
    installed = {found.name: found.version for found in distributions()}
    return [f"{package} {installed[package]}" for package in _PACKAGES if package in installed]


def _check_script(folder: Path) -> None:
    command = [sys.executable, "-I", str(folder / "reproduce.py")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != DIFFERS or finished.stderr:
        printed = (finished.stderr or finished.stdout).strip().splitlines()[-1:]
        raise EngineError(
            f"the reduced graph shows no difference outside ccr-deploy ({', '.join(printed)}): "
            "report it with the bundle and the output of verify --layers"
        )
