"""Make the GPU kit: ``python -m scripts.gpu_kit.make DEMO KIT``, with the folder of `make demo`.

::

    KIT/README.md, install.py, run.py, SHA256SUMS, kit.tar.part-01, …   the files to carry
    KIT/content/                                                        what they contain
        kit.json          what the kit was made from
        bundles/NAME/     bundle/ and model.golden
        images/           the demo's test images
        wheels/           for Python 3.12 on Linux x86-64; torchvision/ for machines that lack it
        tests/, …         the tests that need a GPU
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import tomllib
from packaging.requirements import Requirement

from benchmarks.scaffold import untrained_bundle_with_fp16
from ccr_deploy import CREATED_BY
from ccr_deploy.backends.tensorrt.options import RtxOptions
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.atomic import atomic_folder
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.targets.schema import load_target
from ccr_deploy.workflow.golden import export_golden
from scripts.gpu_kit.device_code import keep_compute_capability
from scripts.gpu_kit.install import ARCHIVE, CONTENT, LAST, SUMS, sha256_of

if TYPE_CHECKING:
    from ccr_deploy.core.stages import Schedule

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
UV = Path(sys.prefix) / "bin" / "uv"
PART_BYTES = 56 << 20
GOLDEN_IMAGES = {"demo": 320, "ccr-layer1": 32}
PAPER_MODEL = "ccr-layer1"
SOURCES = (
    "pyproject.toml",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/support",
    "tests/gpu",
    "benchmarks",
)
"""What the tests need of the repository; their plugins use parts of `benchmarks`."""
_TEST_PACKAGES = ("pytest", "pytest-timeout", "pytest-xdist")
_FROM_SOURCE = ("tensorrt-rtx", "tensorrt-rtx-cu13")
"""Packages without wheels: they are pure Python, so that the wheels built here run on every machine."""
_PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "any",
)


def requirements(project: str, *, with_rtx: bool) -> list[str]:
    """Return what is installed on the machine with the GPU: no PyTorch, and no CUDA libraries beside its own.

    Args:
        project: the content of pyproject.toml.
        with_rtx: whether to install TensorRT-RTX.
    """
    read = tomllib.loads(project)
    extras = read["project"]["optional-dependencies"]
    cuda = [Requirement(line) for line in extras["cuda"]]
    for requirement in cuda:
        requirement.extras.clear()  # they bring CUDA's libraries, which PyTorch has
    needed = [*read["project"]["dependencies"], *map(str, cuda)]
    needed += [line for line in extras["rtx"] if with_rtx or Requirement(line).name != "tensorrt-rtx"]
    needed += [line for line in extras["export"] if Requirement(line).name == "safetensors"]
    needed += [line for line in read["dependency-groups"]["dev"] if Requirement(line).name in _TEST_PACKAGES]
    return [*needed, "pip"]


def constraints(text: str) -> list[str]:
    """Return the lines of constraints.txt that apply: the kit's ONNX Runtime is for another CUDA."""
    return [line for line in text.splitlines() if not line.startswith("onnxruntime")]


def split(archive: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Split a file into parts beside it, and remove it.

    Args:
        archive: the file.
        part_bytes: the size of a part; the last one may be smaller.

    Returns:
        The parts, whose names in alphabetical order are their order.
    """
    parts: list[Path] = []
    with archive.open("rb") as whole:
        while content := whole.read(part_bytes):
            parts.append(archive.with_name(f"{archive.name}.part-{len(parts) + 1:02d}"))
            parts[-1].write_bytes(content)
    archive.unlink()
    return parts


def pack(kit: Path, part_bytes: int = PART_BYTES) -> None:
    """Pack ``content`` of a kit in parts, and add the scripts and the list of SHA-256.

    Args:
        kit: the kit's folder, with ``content``.
        part_bytes: the size of a part.
    """
    archive = kit / ARCHIVE
    with tarfile.open(archive, "w") as packed:
        for path in sorted((kit / CONTENT).iterdir()):
            packed.add(path, path.name)
    parts = split(archive, part_bytes)
    for name in ("README.md", "install.py", LAST):
        shutil.copy(HERE / name, kit / name)
    names = [*(part.name for part in parts), "README.md", "install.py", LAST]
    lines = (f"{sha256_of(kit / name)}  {name}\n" for name in names)
    (kit / SUMS).write_text("".join(lines), encoding="utf-8")


def write_wheels(content: Path, torch: str, capability: str | None) -> None:
    """Build the project's wheel, and download the others.

    Args:
        content: the kit's content.
        torch: the version of PyTorch that torchvision is chosen for.
        capability: the compute capability whose device code is kept; None keeps all.
    """
    wheels = content / "wheels"
    _call("building the wheel", sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels))
    project, pins = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")
    )
    rtx = load_target("rtx").options
    assert isinstance(rtx, RtxOptions)
    with_rtx = capability is None or capability in rtx.compute_capabilities
    download(resolved(requirements(project, with_rtx=with_rtx), constraints(pins)), wheels)
    pinned = resolved([f"torch=={torch}", "torchvision"], [])
    download([pin for pin in pinned if pin.startswith("torchvision==")], content / "torchvision")
    if capability:
        for wheel in wheels.glob("*.whl"):
            keep_compute_capability(wheel, capability)


def resolved(wanted: list[str], held: list[str]) -> list[str]:
    """Return the exact versions of all packages that requirements need on the machine with the GPU.

    Args:
        wanted: the requirements.
        held: constraints.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as limits:
        limits.write("\n".join(held))
        limits.flush()
        printed = _call(
            "choosing versions", str(UV), "pip", "compile", "--quiet", "--python-version", "3.12",
            "--python-platform", "x86_64-manylinux_2_28", "--no-annotate", "--no-header",
            "--no-emit-index-url", "--no-emit-find-links", "--constraint", limits.name, "-",
            text="\n".join(wanted),
        )  # fmt: skip
    return printed.splitlines()


def download(pins: list[str], folder: Path) -> None:
    """Download the wheels of exact versions for the machine with the GPU.

    Args:
        pins: exact versions, as `resolved` returns them.
        folder: the folder to write them to.
    """
    sources = [pin for pin in pins if pin.partition("==")[0] in _FROM_SOURCE]
    wheels = [pin for pin in pins if pin not in sources]
    pip = (sys.executable, "-m", "pip")
    common = ("--quiet", "--disable-pip-version-check", "--no-deps")
    platforms = [f"--platform={name}" for name in _PLATFORMS]
    _call(
        "downloading wheels", *pip, "download", *common, "--only-binary=:all:", "--python-version=3.12",
        "--implementation=cp", *platforms, "--dest", str(folder), *wheels,
    )  # fmt: skip
    if sources:
        _call("building wheels", *pip, "wheel", *common, "--wheel-dir", str(folder), *sources)


def _call(what: str, *command: str, text: str | None = None) -> str:
    """Run a command and return what it prints; `what` names it in the error."""
    ran = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    if ran.returncode:
        lines = ran.stderr.strip().splitlines()
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        raise click.ClickException(f"{what} failed: {' '.join(' '.join(errors).split())[:400]}")
    return ran.stdout


def write_bundles(content: Path, demo: Path, folder: Path) -> None:
    """Write the demo's bundle and that of the paper's model, each with PyTorch's golden file.

    The paper's model is untrained: its speed does not depend on the weights.

    Args:
        content: the kit's content.
        demo: the folder of `make demo`.
        folder: a temporary folder.
    """
    schedules: tuple[Schedule, ...] = ("iteration-major", "layer-major")
    paper = untrained_bundle_with_fp16(PAPER_MODEL, folder, schedules)
    for name, bundle, images in (
        ("demo", demo / "bundle", demo / "images"),
        (PAPER_MODEL, paper.path, folder / "images"),
    ):
        place = content / "bundles" / name
        shutil.copytree(bundle, place / "bundle")
        export_golden(
            Bundle.open(place / "bundle"),
            place / "model.golden",
            EngineStore(folder / "engines"),
            images=images,
            samples=GOLDEN_IMAGES[name],
        )
    shutil.copytree(demo / "images", content / "images")


def write_sources(content: Path) -> None:
    """Copy what the tests need of the repository."""
    for name in SOURCES:
        source, copy = ROOT / name, content / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(source, copy)


def check_kit_folder(kit: Path) -> None:
    """Raise an error if a folder has files, but is no kit: it would be replaced.

    Raises:
        click.ClickException: if it has.
    """
    if kit.exists() and not (kit / SUMS).is_file() and (not kit.is_dir() or any(kit.iterdir())):
        raise click.ClickException(f"{kit}: holds other files: choose another folder")


@click.command()
@click.argument("demo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("kit", type=click.Path(path_type=Path))
@click.option("--torch", default="2.11.0", show_default=True, help="PyTorch's version on the machine.")
@click.option(
    "--compute-capability",
    "capability",
    metavar="X.Y",
    help="Keep the device code of this one alone, for a smaller kit.  [default: all]",
)
def main(demo: Path, kit: Path, torch: str, capability: str | None) -> None:
    """Make the kit, or replace an earlier one in one step."""
    if capability and not re.fullmatch(r"\d+\.\d", capability):
        raise click.ClickException(f"--compute-capability {capability}: expected a number such as 9.0")
    check_kit_folder(kit)
    try:
        make_kit(demo, kit, torch, capability)
    except CcrDeployError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{kit}: cannot be written ({error.strerror or error})") from None
    for path in sorted(kit.iterdir()):
        if path.is_file():
            print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    print(
        f"copy these files to the machine with the GPU, and run python3 install.py there: see {kit}/README.md"
    )


def make_kit(demo: Path, kit: Path, torch: str, capability: str | None) -> None:
    """Make the kit in a folder, or replace an earlier one in one step.

    Args:
        demo: the folder of `make demo`.
        kit: the folder of the kit.
        torch: the version of PyTorch on the machine with the GPU.
        capability: the compute capability whose device code is kept; None keeps all.
    """
    kit.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(kit.resolve()) as new, tempfile.TemporaryDirectory() as temporary:
        content = new / CONTENT
        content.mkdir()
        facts = {"created_by": CREATED_BY, "torch": torch, "compute_capability": capability}
        (content / "kit.json").write_text(f"{json.dumps(facts)}\n", encoding="utf-8")
        write_sources(content)
        write_bundles(content, demo, Path(temporary))
        write_wheels(content, torch, capability)
        pack(new)


if __name__ == "__main__":
    main()
