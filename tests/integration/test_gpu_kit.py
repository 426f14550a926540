"""`make test-gpu` without a GPU, and a whole GPU kit on a bare Python 3.12, up to where it needs a driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bare_environment import find_python
from tests.support.gpu import gpu_is_there

if TYPE_CHECKING:
    from tests.support.demo import CalibratedDemo

ROOT = Path(__file__).parents[2]
without_gpu = pytest.mark.skipif(gpu_is_there(), reason="about machines without a GPU; this one has one")


@without_gpu
def test_a_run_for_the_gpu_fails_where_no_engine_ran() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/gpu/test_runner.py",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout
    assert "\nno engine ran: no GPU found" in ran.stdout
    assert " failed" not in ran.stdout  # the tests are skipped: the run fails nevertheless


@without_gpu
def test_other_runs_skip_the_tests_on_a_gpu_and_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/gpu/test_runner.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "no engine ran" not in ran.stdout


@pytest.mark.slow
@without_gpu
@pytest.mark.timeout(1800)
def test_a_bare_python_installs_the_kit_and_runs_it_up_to_the_driver(
    calibrated_demo: CalibratedDemo, tmp_path: Path
) -> None:
    """Without network, pip and any package but those in the kit."""
    python = find_python("3.12")
    if python is None:
        pytest.skip("Python 3.12, which the kit is for, is not installed")
    made = tmp_path / "made"
    command = [sys.executable, "-m", "scripts.gpu_kit.make", str(calibrated_demo.folder), str(made)]
    making = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "downloading wheels failed" in making.stderr:
        pytest.skip(f"the wheels cannot be downloaded: {making.stderr[-300:]}")
    assert making.returncode == 0, making.stderr
    carried = tmp_path / "carried"
    carried.mkdir()
    for path in filter(Path.is_file, made.iterdir()):
        assert path.stat().st_size <= 56 << 20
        shutil.move(path, carried)
    bare = tmp_path / "bare" / "bin" / "python"
    subprocess.run([python, "-m", "venv", "--without-pip", str(bare.parents[1])], check=True)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        alone = {"HOME": str(tmp_path), "PATH": os.defpath, "PIP_NO_INDEX": "1", **variables}
        command = [str(bare), *arguments]
        return subprocess.run(command, cwd=carried, env=alone, capture_output=True, text=True, check=False)

    assert "run python3 install.py first" in run("run.py").stderr
    installed = run("install.py")
    assert installed.returncode == 0, installed.stderr
    stopped = run("run.py", "--output", str(tmp_path / "results"))
    assert (stopped.returncode, stopped.stdout) == (1, "")
    reason = "no GPU found: no NVIDIA driver is installed"
    assert stopped.stderr == f"no engine ran: {reason}: run the kit on a machine with an NVIDIA GPU\n"
    content = carried / "content"
    kit = {"PYTHONPATH": f"{content / 'site'}:{content}", "GPU_KIT": str(content)}
    tests = run(
        "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(content / "tests" / "gpu"), **kit
    )
    assert tests.returncode == 1
    assert "no engine ran: no GPU found" in tests.stdout
    assert "error" not in tests.stdout.lower()
    # The commands of the steps run, on the CPU: nothing that they import is missing.
    bundle, engines = str(content / "bundles" / "demo" / "bundle"), str(tmp_path / "engines")
    common = ("-m", "ccr_deploy")
    options = ("--target", "cpu", "--fp32", "--engines", engines, "--json")
    assert run(*common, "build-engine", bundle, *options, "--no-timing", **kit).returncode == 0
    golden = str(content / "bundles" / "demo" / "model.golden")
    verified = run(*common, "verify", bundle, *options, "--golden", golden, **kit)
    assert verified.returncode == 0, verified.stdout + verified.stderr
