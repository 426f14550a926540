"""Install the kit on the machine with the GPU: ``python3 install.py``, beside the kit's parts.

It checks the parts, joins and unpacks them into ``content/`` and installs the wheels into ``content/site``.
It needs no network and no package but Python itself, and changes nothing outside of its folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

PYTHON = (3, 12)
SUMS = "SHA256SUMS"
LAST = "run.py"
"""The last file that SHA256SUMS lists: if it is missing, the list is truncated."""
ARCHIVE = "kit.tar"
CONTENT = "content"


class KitError(Exception):
    """The kit cannot be installed; the message is one line."""


def check_machine(python: tuple[int, int], system: str, processor: str) -> None:
    """Raise an error if the wheels are not for this machine.

    Args:
        python: Python's version, such as ``(3, 12)``.
        system: the operating system, as `platform.system` names it.
        processor: the processor's architecture, as `platform.machine` names it.

    Raises:
        KitError: if they are not.
    """
    if (python, system, processor) != (PYTHON, "Linux", "x86_64"):
        raise KitError(
            f"the kit is for Python 3.12 on Linux x86_64, this is Python {python[0]}.{python[1]} on {system} "
            f"{processor}: run it with another Python, such as python3.12 install.py"
        )


def checked_parts(folder: Path) -> list[Path]:
    """Return the kit's parts, in order, after comparing every file of the kit with SHA256SUMS.

    Raises:
        KitError: if a file is missing or damaged.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise KitError(f"{sums}: no such file: copy every file of the kit into one folder")
    lines = [line.partition("  ") for line in sums.read_text(encoding="utf-8", errors="replace").splitlines()]
    expected = {name: digest for digest, _, name in lines}
    if LAST not in expected:
        raise KitError(f"{sums}: perhaps truncated, does not list {LAST}: copy it again")
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise KitError(f"{path}: no such file: copy every file of the kit into one folder")
        found = sha256_of(path)
        if found != digest:
            raise KitError(
                f"{path}: damaged or changed: its SHA-256 is {found[:12]}…, {SUMS} has {digest[:12]}…: "
                "copy it again"
            )
    return [folder / name for name in sorted(expected) if name.startswith(f"{ARCHIVE}.")]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(parts: list[Path], folder: Path) -> None:
    """Join the parts of the archive and unpack it.

    Args:
        parts: the parts, in order.
        folder: the folder to unpack into, which exists.
    """
    joined = folder / ARCHIVE
    with joined.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
    with tarfile.open(joined) as archive:
        archive.extractall(folder, filter="data")
    joined.unlink()


def install_wheels(content: Path) -> None:
    """Install the wheels into ``content/site``, with the pip that is among them.

    Not into a virtual environment: one that is made from another virtual environment would not see the
    packages of that one, PyTorch among them.

    Raises:
        KitError: if pip fails.
    """
    wheels = sorted((content / "wheels").glob("*.whl"))
    (pip,) = (wheel for wheel in wheels if wheel.name.startswith("pip-"))
    if advice := torchvision_advice(content):
        print(advice)
    elif importlib.util.find_spec("torchvision") is None:
        wheels += (content / "torchvision").glob("*.whl")
    command = [sys.executable, f"{pip}/pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    options = ["--disable-pip-version-check", "--no-input", "--target", str(content / "site")]
    installed = subprocess.run(
        [*command, *options, *map(str, wheels)], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        raise KitError(f"{content / 'wheels'}: pip failed: {' '.join(installed.stderr.split())[-300:]}")


def torchvision_advice(content: Path) -> str:
    """Return why the kit's torchvision does not serve this machine; empty if it does or is not needed."""
    made_for = json.loads((content / "kit.json").read_text(encoding="utf-8"))["torch"]
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: measurements that compare with it will fail"
    if (
        importlib.util.find_spec("torchvision") is None
        and (found := version("torch").split("+")[0]) != made_for
    ):
        return (
            f"torchvision is not installed, and the kit has it for PyTorch {made_for}, not {found}: "
            f"measurements that compare with PyTorch will fail: use make gpu-kit TORCH={found}"
        )
    return ""


def install(folder: Path) -> Path:
    """Install the kit whose files are in a folder; return the folder of its content.

    An earlier content is replaced at the end, in one step.

    Raises:
        KitError: if the kit is not for this machine, a file of it is missing or damaged, or pip fails.
        OSError: if a file cannot be written.
    """
    check_machine(sys.version_info[:2], platform.system(), platform.machine())
    parts = checked_parts(folder)
    content = folder / CONTENT
    with tempfile.TemporaryDirectory(prefix=f".{CONTENT}.", dir=folder) as name:
        new = Path(name) / CONTENT
        new.mkdir()
        unpack(parts, new)
        install_wheels(new)
        if content.exists():
            content.rename(Path(name) / "old")
        new.rename(content)
    return content


def main() -> None:
    """Install the kit beside this script."""
    folder = Path(__file__).resolve().parent
    try:
        content = install(folder)
    except KitError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        sys.exit(f"Error: {error.filename or folder}: cannot be written ({error.strerror})")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was installed")
    print(f"installed into {content}: next: python3 run.py")


if __name__ == "__main__":
    main()
