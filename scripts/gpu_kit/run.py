"""Run the kit's tests and measurements: ``python3 run.py [--output DIR] [STEP …]``, after ``install.py``.

A step is a row of `STEPS`; each runs commands, one after the other, and writes ``DIR/STEP.json``, again after
every command. ``STEP/PART`` runs only the commands whose names begin so, such as ``cuda/verify``. The exit
status is 1 if no engine can run here, or a command fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CONTENT = Path(__file__).resolve().parent / "content"
PACKAGES = (
    "ccr-deploy", "cuda-bindings", "numpy", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "torch",
    "torchvision", "triton",
)  # fmt: skip
"""The packages whose versions the results state."""
GPU_STATE = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "utilization.gpu")
"""What nvidia-smi is asked before and after each command; `nvidia-smi --help-query-gpu` has them."""
OUTPUT_CHARACTERS = 20_000
PROBE = """
import json
from dataclasses import asdict
from ccr_deploy.core.gpu import find_gpu
from ccr_deploy.errors import CcrDeployError
try:
    print(json.dumps({"gpu": asdict(find_gpu())}))
except CcrDeployError as error:
    print(json.dumps({"obstacle": str(error)}))
"""

UNDER_SANITIZER = """
import os, shutil, sys
sanitizer = shutil.which("compute-sanitizer")
if not sanitizer:
    sys.exit("compute-sanitizer is not installed: install the CUDA toolkit, and add its bin folder to PATH")
os.execv(sanitizer, [sanitizer, "--error-exitcode", "1", sys.executable, *sys.argv[1:]])
"""
"""Runs the arguments with this Python under compute-sanitizer; an invalid access to memory is an error."""


@dataclass(frozen=True)
class Command:
    """A command of Python: its arguments, and the time it may take.

    If it prints JSON, the results contain it.
    """

    name: str
    arguments: tuple[str, ...]
    limit_seconds: int = 600


def tests(content: Path) -> list[Command]:
    """Return the command of the tests that need a GPU."""
    arguments = ("-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", str(content / "tests" / "gpu"))
    return [Command("tests", arguments, limit_seconds=1800)]


def cuda(content: Path) -> list[Command]:
    """Return the commands that verify and time every bundle's engines of the target `cuda`."""

    def command(name: str, action: str, folder: Path, *options: str) -> Command:
        arguments = (
            "-m", "ccr_deploy", action, str(folder / "bundle"), "--target", "cuda",
            "--engines", str(content / "engines"), "--json", *options,
        )  # fmt: skip
        return Command(f"cuda/{name}", arguments)

    found = []
    bundles = sorted((content / "bundles").iterdir(), reverse=True)
    for folder in bundles:
        for precision in ("fp32", "fp16"):
            name = f"verify/{folder.name}/{precision}"
            golden = ("--golden", str(folder / "model.golden"))
            found += [
                command(f"{name}/build-engine", "build-engine", folder, f"--{precision}", "--no-timing"),
                command(f"{name}/golden", "verify", folder, f"--{precision}", *golden),
            ]
    for batch in ("1", "8", "64"):
        found += [
            command(
                f"benchmark/{folder.name}/{batch}", "benchmark", folder, "--batch", batch, "--rounds", "5"
            )
            for folder in bundles
        ]
    return found


def sanitizer(content: Path) -> list[Command]:
    """Return the command that runs the runner's tests on real CUDA under compute-sanitizer of the toolkit."""
    tests_of_runner = str(content / "tests" / "gpu" / "test_runner_stand_in.py")
    # Without -m gpu, with which the run fails if no engine ran: these tests have a stand-in instead.
    pytest = ("-m", "pytest", "-p", "no:cacheprovider", tests_of_runner)
    return [Command("sanitizer", ("-c", UNDER_SANITIZER, *pytest), limit_seconds=1200)]


def schedules(_: Path) -> list[Command]:
    """Return the command that times the unroll schedules, and a kernel for the LSTM of each pixel."""
    return [Command("schedules", ("-m", "benchmarks.gpu_schedules"))]


STEPS: dict[str, Callable[[Path], list[Command]]] = {
    "tests": tests,
    "sanitizer": sanitizer,
    "cuda": cuda,
    "schedules": schedules,
}
"""The steps, in order. To add a measurement, add a row: a function that returns its commands."""


def selected(step: str, content: Path) -> list[Command]:
    """Return the commands of a step, or of a part of it.

    Raises:
        ValueError: if there is no such step.
    """
    row = STEPS.get(step.partition("/")[0])
    found = [
        command for command in (row(content) if row else ()) if f"{command.name}/".startswith(f"{step}/")
    ]
    if not found:
        raise ValueError(
            f"unknown step {step!r}: choose from {', '.join(STEPS)}, or a part, such as cuda/verify"
        )
    return found


def environment(content: Path) -> dict[str, str]:
    """Return the variables of the commands: the kit's packages first, then those of this Python.

    The CUDA libraries are those that came with PyTorch; ONNX Runtime's provider does not find them itself.
    """
    spec = importlib.util.find_spec("nvidia")
    roots = (spec.submodule_search_locations if spec else None) or ()
    libraries = [str(folder) for root in roots for folder in sorted(Path(root).glob("*/lib"))]
    changed = {
        "PYTHONPATH": _joined([str(content / "site"), str(content), os.environ.get("PYTHONPATH", "")]),
        "LD_LIBRARY_PATH": _joined([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
        "CCR_DEPLOY_ENGINES": str(content / "engines"),
        "GPU_KIT": str(content),
    }
    return {**os.environ, **changed}


def _joined(folders: Iterable[str]) -> str:
    return os.pathsep.join(filter(None, folders))


def run(command: Command, content: Path) -> dict[str, Any]:
    """Run a command and return its record for the results."""
    before, started = gpu_state(), time.monotonic()
    try:
        ended = subprocess.run(
            [sys.executable, *command.arguments],
            cwd=content,
            env=environment(content),
            capture_output=True,
            text=True,
            check=False,
            timeout=command.limit_seconds,
        )
        status, printed, problems = ended.returncode, ended.stdout, ended.stderr
    except subprocess.TimeoutExpired as late:
        status, printed = None, _text(late.stdout)
        problems = f"{_text(late.stderr)}\nended after {command.limit_seconds} s"
    result = _json(printed)
    return {
        "name": command.name,
        "arguments": list(command.arguments),
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
        "gpu_before": before,
        "gpu_after": gpu_state(),
        "result": result,
        "stdout": None if result is not None else printed[-OUTPUT_CHARACTERS:],
        "stderr": problems[-OUTPUT_CHARACTERS:],
    }


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _json(printed: str) -> Any:  # noqa: ANN401 -- any JSON
    try:
        return json.loads(printed)
    except ValueError:
        return None


def gpu_state() -> dict[str, str] | None:
    """Return clocks, power and temperature of the first GPU; None without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", f"--query-gpu={','.join(GPU_STATE)}", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(GPU_STATE, (value.strip() for value in answer.split(",")), strict=False))


def machine(content: Path) -> dict[str, Any]:
    """Return the GPU or the obstacle to using one, and the versions of the packages.

    Raises:
        RuntimeError: if the kit's packages cannot be imported.
    """
    probe = [sys.executable, "-c", PROBE]
    ran = subprocess.run(probe, env=environment(content), capture_output=True, text=True, check=False)
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"the installed kit does not run ({reason}): run python3 install.py again")
    found: dict[str, Any] = json.loads(ran.stdout)
    versions: dict[str, str] = {}
    for package in distributions(path=[str(content / "site"), *sys.path]):
        if (name := package.metadata["Name"]) in PACKAGES:
            versions.setdefault(name, package.version)  # the first one is imported
    return {**found, "python": sys.version.split()[0], "packages": dict(sorted(versions.items()))}


def obstacle(kit: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return why no engine can run; None if one can.

    Args:
        kit: what the kit was made from.
        found: what `machine` returns.
    """
    if reason := found.get("obstacle"):
        return f"{reason}: run the kit on a machine with an NVIDIA GPU"
    kept, here = kit["compute_capability"], found["gpu"]["compute_capability"]
    if kept not in (None, here):
        return (
            f"the kit has device code for compute capability {kept} alone, this GPU has {here}: "
            f"use make gpu-kit COMPUTE_CAPABILITY={here}"
        )
    return None


def write(path: Path, result: dict[str, Any]) -> None:
    """Replace a file of results in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{json.dumps(result, indent=1)}\n", encoding="utf-8")
    temporary.replace(path)


def run_step(step: str, output: Path, facts: dict[str, Any]) -> int:
    """Run the commands of a step, write its results, and return the number of commands that failed.

    Args:
        step: the step, or a part of it.
        output: the folder of the results.
        facts: what the results state about kit and machine.
    """
    path = output / f"{step.strip('/').replace('/', '-')}.json"
    records: list[dict[str, Any]] = []
    for command in selected(step, CONTENT):
        print(f"{command.name} …", flush=True)
        record = run(command, CONTENT)
        records.append(record)
        write(path, {**facts, "commands": records})
        print(f"{command.name}: {_outcome(record)} in {record['seconds']:.0f} s, see {path}", flush=True)
    return sum(record["status"] != 0 for record in records)


def _outcome(record: dict[str, Any]) -> str:
    if record["status"] == 0:
        return "passed"
    lines = [*(record["stdout"] or "").splitlines(), *record["stderr"].splitlines()]
    return f"FAILED ({lines[-1].strip() if lines else record['status']})"


def main() -> int:
    """Run the chosen steps and return the exit status."""
    parser = argparse.ArgumentParser(description="Run the kit's tests and measurements.")
    default = Path(os.environ.get("OUT") or "results")
    parser.add_argument(
        "--output", type=Path, default=default, help="folder of the results (default: $OUT, results)"
    )
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)}, or a part, such as cuda/verify"
    )
    arguments = parser.parse_args()
    steps: list[str] = arguments.steps or [*STEPS]
    if not (CONTENT / "site").is_dir():
        sys.exit(f"Error: {CONTENT / 'site'}: no such folder: run python3 install.py first")
    try:
        for step in steps:
            selected(step, CONTENT)
        found = machine(CONTENT)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"Error: {error}")
    kit = json.loads((CONTENT / "kit.json").read_text(encoding="utf-8"))
    if reason := obstacle(kit, found):
        sys.exit(f"no engine ran: {reason}")
    facts = {"kit": kit, "machine": found}
    arguments.output.mkdir(parents=True, exist_ok=True)
    failed = sum(run_step(step, arguments.output.resolve(), facts) for step in steps)
    print(f"{failed} commands failed" if failed else "all commands passed")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the results of the commands before are complete")
