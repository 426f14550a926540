"""Write the containers' requirement files: exact versions, with a hash for each of a version's files.

They pin the versions of constraints.txt, which the tests ran with, for the Pythons that constraints.txt
supports. Versions for the older Python of some TensorRT images, and for JetPack 6's CUDA, are resolved
without constraints.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
UV = Path(sys.prefix) / "bin" / "uv"
FOLDER = Path("deploy") / "container"
OVERRIDES = FOLDER / "overrides.txt"
CONSTRAINED_FROM = "3.11"
"""The oldest Python that constraints.txt was resolved for."""
_PIN = re.compile(r"(?P<name>[a-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+))?")


@dataclass(frozen=True)
class Lock:
    """A requirement file, its extras and Pythons, and its differences from constraints.txt."""

    file: str
    extras: tuple[str, ...] | None
    """The extras of the package; None for the packages that build its wheel."""
    python: str
    """The oldest Python that the file supports."""
    on_every_platform: tuple[str, ...] = ()
    """Packages that the workstation replaces by another: their marker in constraints.txt is ignored."""
    unconstrained: tuple[str, ...] = ()
    """Packages that need another version than the workstation's."""

    @property
    def path(self) -> Path:
        """The path of the requirement file, relative to the repository's root."""
        return FOLDER / self.file

    def requirements(self) -> list[str]:
        """Return the requirements in pyproject.toml."""
        asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        if self.extras is None:
            return list(asked["build-system"]["requires"])
        extras = asked["project"]["optional-dependencies"]
        return [*asked["project"]["dependencies"], *(line for extra in self.extras for line in extras[extra])]


CPU = Lock(
    "requirements-cpu.txt",
    ("cpu", "openvino", "serve"),
    python="3.11",
    on_every_platform=("onnxruntime",),
    unconstrained=("psutil",),
)
TENSORRT = Lock(
    "requirements-tensorrt.txt",
    ("tensorrt-system", "serve"),
    python="3.10",
    unconstrained=("psutil", "cuda-bindings", "cuda-python"),
)
BUILD = Lock("requirements-build.txt", None, python="3.11")
LOCKS = (CPU, TENSORRT, BUILD)


def constraints_of(lock: Lock, constraints: str) -> str:
    """Return the lines of constraints.txt that apply to a lock."""
    taken = []
    for line in constraints.splitlines():
        pin = _PIN.fullmatch(line)
        assert pin, line
        if pin["name"] in lock.unconstrained:
            continue
        marker = None if pin["name"] in lock.on_every_platform else pin["marker"]
        resolved_for = f"python_version >= '{CONSTRAINED_FROM}'"
        markers = f"({marker}) and {resolved_for}" if marker else resolved_for
        taken.append(f"{pin['name']}=={pin['version']} ; {markers}\n")
    return "".join(taken)


def write(lock: Lock) -> None:
    """Resolve and write a requirement file."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.write(constraints_of(lock, (ROOT / "constraints.txt").read_text(encoding="utf-8")))
        constraints.flush()
        command = [
            str(UV), "pip", "compile", "--quiet", "-", "--output-file", str(lock.path),
            "--universal", "--python-version", lock.python, "--generate-hashes",
            "--constraint", constraints.name, "--overrides", str(OVERRIDES),
            "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
            "--custom-compile-command", "make constraints",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, input="\n".join(lock.requirements()), text=True, check=True)


def main() -> None:
    """Write all requirement files."""
    for lock in LOCKS:
        write(lock)


if __name__ == "__main__":
    main()
