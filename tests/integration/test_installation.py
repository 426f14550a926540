"""What the wheel contains, and which packages the light modules import."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ccr_deploy.core.gpu_driver import GpuDriver, gpu_extras
from ccr_deploy.models.key_map import key_map_files
from ccr_deploy.targets.schema import load_target, target_files
from scripts.extras import extras
from scripts.lock_images import LOCKS

ROOT = Path(__file__).parent.parent.parent
_LIST_SHIPPED = """
from ccr_deploy.models.key_map import *
from ccr_deploy.targets.schema import *
load_target("cpu")
read_key_map(find_key_map("pytorch-image-comp-rnn"))
print(*target_files().values(), *key_map_files().values())
"""


def test_checkout_finds_the_targets() -> None:
    assert set(target_files()) == {path.stem for path in (ROOT / "engines").glob("*.toml")}
    for name in target_files():
        assert load_target(name).description


def test_wheel_contains_the_targets_the_key_maps_and_the_report_template(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = set(archive.namelist())
    assert "ccr_deploy/py.typed" in names
    assert {"ccr_deploy/reporting/report.html.j2", "ccr_deploy/reporting/report.css"} <= names
    shipped = {name for name in names if name.endswith(".toml")}
    assert shipped == {
        *(f"ccr_deploy/targets/shipped/{name}.toml" for name in target_files()),
        *(f"ccr_deploy/models/key_maps/{name}.toml" for name in key_map_files()),
    }
    assert not [name for name in names if name.startswith(("training", "tests", "benchmarks"))]
    listed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {_LIST_SHIPPED}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(listed.stdout.split()) == {str(site / name) for name in shipped}


def test_mentioned_extras_exist() -> None:
    """Read messages, documents and the containers' requirement files."""
    files = [*(ROOT / "ccr_deploy").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = re.findall(r"(?:ccr-deploy|'\.)\[([a-z0-9,-]+)\]", text)
    named += [extra for lock in LOCKS for extra in lock.extras or ()]
    assert len(named) > 10
    named += [
        extra
        for driver in (
            GpuDriver(None, (13, 0)),
            GpuDriver(None, (12, 4)),
            GpuDriver(None, (12, 6), is_jetson=True),
        )
        for extra in gpu_extras(driver, (3, 12), "x86_64").names
    ]
    assert {extra for names in named for extra in names.split(",")} <= set(extras())


@pytest.mark.parametrize(
    ("extra", "package", "takes", "refuses"),
    [
        ("cuda", "onnxruntime-gpu", "1.31.1", "1.24.4"),
        ("cuda12", "onnxruntime-gpu", "1.24.4", "1.27.0"),
        ("cuda12", "cuda-python", "12.9.10", "13.0.0"),
        ("tensorrt-cu12", "tensorrt-cu12", "11.4.0.106", "12.0"),
        ("tensorrt-cu12", "cuda-python", "12.9.10", "13.0.0"),
        ("tensorrt-system", "cuda-python", "12.9.10", "13.0.0"),
        ("rtx", "tensorrt-rtx", "1.5.0.114", "1.4.0.76"),
    ],
)
def test_extra_installs_versions_for_its_driver(extra: str, package: str, takes: str, refuses: str) -> None:
    (requirement,) = (found for found in map(Requirement, extras()[extra]) if found.name == package)
    assert requirement.specifier.contains(takes)
    assert not requirement.specifier.contains(refuses)


def test_help_needs_no_heavy_package() -> None:
    """``ccr-deploy --help`` must be fast, and work on a device without PyTorch."""
    program = (
        "import sys\n"
        "import ccr_deploy.cli\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnx_ir', 'matplotlib', 'lightning', 'pydantic'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_missing_extra_is_named() -> None:
    """If PyTorch is not installed, the error names the extra."""
    program = (
        "import sys\n"
        "sys.modules['torch'] = None  # import then fails, as if it were not installed\n"
        "sys.argv = ['ccr-deploy', *sys.argv[1:]]\n"
        "from ccr_deploy.cli import main\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "describe"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 3
    assert "pip install 'ccr-deploy[export]'" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
