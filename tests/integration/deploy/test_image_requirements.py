"""The containers' requirement files: complete, with hashes, and of the versions that the tests ran with."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from typing import TYPE_CHECKING

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock_images import BUILD, CPU, LOCKS, OVERRIDES, ROOT, TENSORRT, UV, Lock, constraints_of
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PYTHONS = {CPU: ("3.11", "3.12", "3.13"), TENSORRT: ("3.10", "3.11", "3.12", "3.13"), BUILD: ("3.11", "3.12")}
MACHINES = ("x86_64", "aarch64")
MACHINE_OF_EACH = [
    pytest.param(lock, python, machine, id=f"{lock.path.stem}-{python}-{machine}")
    for lock in LOCKS
    for python, machine in itertools.product(PYTHONS[lock], MACHINES)
]

# Python imports it at the start of each process.
HIDING = """
import sys

class Hiding:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {hidden}:
            raise ModuleNotFoundError(f"a test hides {{name}}", name=name)

sys.meta_path.insert(0, Hiding)
"""


def linux(python: str, machine: str) -> dict[str, str]:
    """The values of environment markers in the image."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "extra": "",
    }


def pins(text: str, environment: dict[str, str]) -> dict[str, str]:
    """The version of each package in the lock."""
    lines = [line.removesuffix(" \\") for line in text.splitlines() if not line.startswith((" ", "#"))]
    found: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            assert requirement.name not in found
            found[requirement.name] = exact.version
    return found


def text_of(lock: Lock) -> str:
    return (ROOT / lock.path).read_text(encoding="utf-8")


def overrides() -> dict[str, Requirement]:
    lines = (ROOT / OVERRIDES).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in requirements}


LEFT_OUT = {name for name, requirement in overrides().items() if requirement.marker}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path.stem)
def test_every_version_has_hashes_and_no_address(lock: Lock) -> None:
    text = text_of(lock)
    assert not re.search(r"^--|\S+://|^\S*/\S*$", text, flags=re.MULTILINE)
    for block in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        first, *hashes = block.strip().split(" \\\n    ")
        assert re.match(r"[a-z0-9.-]+==", first)
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes)


@pytest.mark.parametrize(("lock", "python", "machine"), MACHINE_OF_EACH)
def test_a_lock_satisfies_the_requirements_of_pyproject(lock: Lock, python: str, machine: str) -> None:
    environment = linux(python, machine)
    locked = pins(text_of(lock), environment)
    for requirement in map(Requirement, lock.requirements()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.specifier.contains(locked[requirement.name]), requirement


@pytest.mark.parametrize(
    ("lock", "python", "machine"), [case for case in MACHINE_OF_EACH if case.values[1] != "3.10"]
)
def test_a_lock_has_the_versions_of_the_constraints(lock: Lock, python: str, machine: str) -> None:
    environment = linux(python, machine)
    tested = pins(constraints_of(lock, CONSTRAINTS), environment)
    for package, version in pins(text_of(lock), environment).items():
        if package not in lock.unconstrained:
            assert tested[package] == version, package


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path.stem)
def test_a_lock_has_all_requirements_of_its_packages_except_the_omitted_ones(lock: Lock) -> None:
    """As far as those are installed here, in these versions."""
    environment = linux(f"{sys.version_info.major}.{sys.version_info.minor}", "x86_64")
    locked = pins(text_of(lock), environment)
    looked_at = 0
    for package, version in locked.items():
        assert package not in LEFT_OUT
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            continue
        looked_at += installed.version == version
        for requirement in map(Requirement, installed.requires or []) if installed.version == version else ():
            name = canonicalize_name(requirement.name)
            asked = requirement.marker is None or requirement.marker.evaluate(environment)
            if asked and name not in LEFT_OUT:
                wanted = overrides().get(name, requirement)
                assert wanted.specifier.contains(locked[name]), f"{package} needs {requirement}"
    assert looked_at > len(locked) * 0.7


def test_a_constraint_holds_for_the_pythons_that_it_was_resolved_for() -> None:
    constraints = (
        "numpy==2.4.6 ; python_full_version < '3.12'",
        "psutil==5.9.8",
        "onnxruntime==1.2 ; os_name == 'nt'",
        "six==1.17",
    )
    assert constraints_of(CPU, "\n".join(constraints)).splitlines() == [
        "numpy==2.4.6 ; (python_full_version < '3.12') and python_version >= '3.11'",
        "onnxruntime==1.2 ; python_version >= '3.11'",
        "six==1.17 ; python_version >= '3.11'",
    ]


def test_every_package_of_the_server_is_locked(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other package of this environment is hidden from it."""
    locked = {*pins(text_of(CPU), linux("3.11", "x86_64")), "ccr-deploy", "onnxruntime-gpu"}
    providers = {
        module: {canonicalize_name(name) for name in names}
        for module, names in packages_distributions().items()
    }
    hidden = sorted(module for module, names in providers.items() if not names & locked)
    assert {"pandas", "kubernetes", "onnx", "torch", "cryptography", "openvino_telemetry"} <= set(hidden)
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    image = np.full((1, 32, 48, 3), 99, np.uint8)
    with ServerProcess(tiny_bundle, built_store) as server:
        server.wait_for("ready")
        codes = []
        for client in (server.http(), server.grpc()):
            with client:
                library = sys.modules[type(client).__module__.rpartition(".")[0]]
                tensor = library.InferInput("image", list(image.shape), "UINT8")
                tensor.set_data_from_numpy(image)
                codes.append(client.infer("encoder", [tensor]).as_numpy("code"))
    assert server.errors == ""
    np.testing.assert_array_equal(*codes)


@pytest.mark.slow  # asks the package index
@pytest.mark.parametrize(("lock", "python", "machine"), MACHINE_OF_EACH)
def test_every_package_has_a_locked_wheel(lock: Lock, python: str, machine: str, tmp_path: Path) -> None:
    """With the glibc of Debian 12 or Ubuntu 22.04."""
    command = [
        UV, "pip", "install", "--quiet", "--dry-run", "--target", tmp_path, "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--python-version", python,
        "--python-platform", f"{machine}-manylinux_2_35", "-r", lock.path,
    ]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
