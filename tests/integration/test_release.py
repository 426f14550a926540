"""The files of a release: wheel, sdist and bill of materials."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ccr_deploy import __version__
from tests.support.bare_environment import make_environment, oldest_python, run

ROOT = Path(__file__).parents[2]
NOT_RELEASED = {".ci/run"}


def hatch(checkout: Path, folder: Path, *kinds: str) -> None:
    """Build wheel or sdist of a checkout into a folder."""
    chosen = [argument for kind in kinds for argument in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", *chosen, "-d", str(folder)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a wheel, an sdist and a bill of materials, built as `make release` does."""
    folder = tmp_path_factory.mktemp("dist")
    hatch(ROOT, folder, "wheel", "sdist")
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "scripts.make_sbom", str(wheel)], cwd=ROOT, check=True)
    return folder


def test_file_names_have_the_version_of_the_package(release: Path) -> None:
    name = f"ccr_deploy-{__version__}"
    assert {path.name for path in release.iterdir()} == {
        f"{name}-py3-none-any.whl",
        f"{name}.tar.gz",
        f"{name}.cdx.json",
    }


def test_the_version_is_in_one_place() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in text
    assert not re.search(r"^version\s*=", text, flags=re.MULTILINE)


def sdist_files(release: Path) -> set[str]:
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_sdist_contains_what_the_repository_tracks(release: Path) -> None:
    """It has all tests and documents, and no file that is not tracked."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    missing = tracked - NOT_RELEASED - sdist_files(release)
    assert not missing
    untracked = sdist_files(release) - tracked - {"PKG-INFO"}
    new = {name for name in untracked if (ROOT / name).exists()}  # not committed yet
    assert untracked == new


def test_sdist_builds_the_same_wheel(release: Path, tmp_path: Path) -> None:
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    hatch(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "dist", "wheel")
    (built,) = (tmp_path / "dist").glob("*.whl")
    (wheel,) = release.glob("*.whl")
    assert contents(built) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_release_installs_in_a_bare_environment(release: Path, pattern: str, tmp_path: Path) -> None:
    (file,) = release.glob(pattern)
    make_environment(oldest_python(), tmp_path / "bare", str(file))
    python = str(tmp_path / "bare" / "bin" / "python")
    for command in ([str(tmp_path / "bare" / "bin" / "ccr-deploy")], [python, "-m", "ccr_deploy"]):
        printed = run(*command, "--version")
        assert printed.stdout.strip().endswith(__version__), printed.stderr
    doctor = run(python, "-m", "ccr_deploy", "doctor")
    assert doctor.returncode == 0, doctor.stderr
    metadata = run(python, "-c", "from importlib.metadata import version; print(version('ccr-deploy'))")
    assert metadata.stdout.strip() == __version__


@pytest.fixture(scope="module")
def sbom(release: Path) -> dict[str, Any]:
    (path,) = release.glob("*.cdx.json")
    bill: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return bill


def test_sbom_is_valid(release: Path, sbom: dict[str, Any]) -> None:
    (path,) = release.glob("*.cdx.json")
    version = SchemaVersion.from_version(sbom["specVersion"])
    assert JsonStrictValidator(version).validate_str(path.read_text(encoding="utf-8")) is None


def test_sbom_describes_the_wheel(sbom: dict[str, Any]) -> None:
    root = sbom["metadata"]["component"]
    assert (root["name"], root["version"]) == ("ccr-deploy", __version__)
    assert root["licenses"][0]["license"]["id"] == "Apache-2.0"
    (dependencies,) = (entry for entry in sbom["dependencies"] if entry["ref"] == root["bom-ref"])
    direct = {ref.partition("==")[0] for ref in dependencies["dependsOn"]}
    assert {"click", "msgspec", "numpy", "pillow", "rich", "torch", "kserve"} <= direct


def test_sbom_tells_required_packages_from_those_of_extras(sbom: dict[str, Any]) -> None:
    scopes = {component["name"].lower(): component["scope"] for component in sbom["components"]}
    required = {name for name, scope in scopes.items() if scope == "required"}
    assert {"click", "msgspec", "numpy", "pillow", "pygments", "rich"} <= required
    assert "torch" not in required
    assert scopes["torch"] == scopes["kserve"] == "optional"
    assert not {"pytest", "ruff", "mypy", "hatchling", "ccr-deploy"} & set(scopes)


def test_sbom_has_the_licences_of_most_packages(sbom: dict[str, Any]) -> None:
    """A few packages declare none that CycloneDX knows."""
    without = [component["name"] for component in sbom["components"] if not component.get("licenses")]
    assert len(without) < len(sbom["components"]) / 10, without


@pytest.mark.slow  # half a minute
def test_sbom_of_the_same_wheel_is_the_same(release: Path, tmp_path: Path) -> None:
    (wheel,) = release.glob("*.whl")
    again = shutil.copy(wheel, tmp_path)
    subprocess.run([sys.executable, "-m", "scripts.make_sbom", str(again)], cwd=ROOT, check=True)
    (first,), (second,) = release.glob("*.cdx.json"), tmp_path.glob("*.cdx.json")
    assert first.read_bytes() == second.read_bytes()
    assert str(ROOT) not in first.read_text(encoding="utf-8")
