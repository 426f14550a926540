"""Write the containers' requirement files: exact versions, with a hash for each of a version's files.

They hold the versions of constraints.txt, which the tests ran with, on the Pythons that those are for. For
the older Python that TensorRT's images may bring, and for JetPack 6's CUDA, versions are resolved freely.
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
    """A requirement file, what it is for, and where it departs from constraints.txt."""

    file: str
    extras: tuple[str, ...] | None
    """The package's; None: what builds the package's wheel."""
    python: str
    """The oldest Python that it is for."""
    on_every_platform: tuple[str, ...] = ()
    """Packages that constraints.txt holds where the workstation takes no other in their place."""
    unconstrained: tuple[str, ...] = ()
    """Packages that need another version than the workstation's."""

    @property
    def path(self) -> Path:
        """The requirement file, from the repository's root."""
        return FOLDER / self.file

    def requirements(self) -> list[str]:
        """Return what is asked for, by pyproject.toml."""
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
    """Return what a lock takes of the lines of constraints.txt."""
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
    """Resolve a requirement file anew."""
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
    """Write every file."""
    for lock in LOCKS:
        write(lock)


if __name__ == "__main__":
    main()
