"""A real Triton server on loopback: the program that `nvidia-pytriton` ships, in a separate environment.

``make triton-server`` makes that environment. The server has only Triton's Python backend; the backend
``onnxruntime`` is the Python model in this folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.hosts.processes import PATIENCE_SECONDS, free_ports, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENVIRONMENT = Path(__file__).parents[3] / "build" / "triton"
BACKENDS = Path(__file__).parent / "backends"
STOP_SECONDS = 30


class NoServerError(Exception):
    """Triton server is not installed on this machine, or does not run."""


@dataclass(frozen=True)
class Installation:
    """The paths of an installed server."""

    python: Path
    program: Path
    libraries: Path
    python_backend: Path
    stub: Path

    @classmethod
    def find(cls) -> Installation:
        """Find the server that ``make triton-server`` installed.

        Raises:
            NoServerError: if it is not installed, or a part of it cannot run on this machine.
        """
        python = ENVIRONMENT / "bin" / "python"
        packages = next(ENVIRONMENT.glob("lib/python*/site-packages"), None)
        if packages is None or not (packages / "pytriton" / "tritonserver").is_dir():
            raise NoServerError("build/triton: Triton server not installed: run make triton-server")
        server = packages / "pytriton" / "tritonserver"
        version = packages.parent.name.removeprefix("python")
        found = cls(
            python=python,
            program=server / "bin" / "tritonserver",
            libraries=packages / "nvidia_pytriton.libs",
            python_backend=server / "backends" / "python",
            stub=server / "python_backend_stubs" / version / "triton_python_backend_stub",
        )
        if not found.stub.exists():
            raise NoServerError(f"Triton's Python backend does not support Python {version}")
        command = ["ldd", str(found.stub)]
        listed = subprocess.run(command, env=found.environment(), capture_output=True, text=True, check=False)
        if missing := re.findall(r"(\S+) => not found", listed.stdout):
            raise NoServerError(f"Triton's Python backend: libraries not found: {', '.join(missing)}")
        return found

    def environment(self) -> dict[str, str]:
        """Return the variables with which the backend finds this environment's Python and libraries."""
        libraries = (self.libraries, sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH"))
        return {
            **os.environ,
            "VIRTUAL_ENV": str(ENVIRONMENT),
            "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in libraries if folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@dataclass(frozen=True)
class TritonServer:
    """A running server that is ready."""

    process: subprocess.Popen[str]
    http: str
    grpc: str
    metrics: str
    log: Path


@contextlib.contextmanager
def serving(repository: Path, folder: Path, *options: str) -> Iterator[TritonServer]:
    """Start a server for a repository, wait until it is ready, and stop it at the end.

    Args:
        repository: the model repository.
        folder: the folder for its log and its backends.
        options: further arguments of the program.

    Raises:
        NoServerError: if the server is not installed.
        RuntimeError: if it exits or is not ready in time; the message is the end of its log.
    """
    installation = Installation.find()
    backends = folder / "backends"
    shutil.copytree(BACKENDS, backends)
    shutil.copytree(installation.python_backend, backends / "python")
    shutil.copy(installation.stub, backends / "python")
    http, grpc, metrics = free_ports(3)
    shared_memory = f"ccr_deploy_test_{uuid.uuid4().hex}_"
    command = [
        str(installation.program),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        "--allow-gpu-metrics=false",
        *(
            f"--backend-config={name},shm-region-prefix-name={shared_memory}"
            for name in ("python", "onnxruntime")
        ),
        *options,
    ]
    log = folder / "server.log"
    environment = installation.environment()
    # A killed server leaves its Python stubs, which run in its session, and its shared memory.
    with (
        _removing(Path("/dev/shm"), f"{shared_memory}*"),  # noqa: S108
        log.open("wb") as file,
        started(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ) as process,
    ):
        server = TritonServer(process, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"127.0.0.1:{metrics}", log)
        try:
            _wait_for(lambda: _is_ready(server.http), process, log, PATIENCE_SECONDS)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)


@contextlib.contextmanager
def _removing(folder: Path, names: str) -> Iterator[None]:
    try:
        yield
    finally:
        for path in folder.glob(names):
            path.unlink()


def _wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str], log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the server exited or was not ready in time: {log.read_text(errors='replace')[-4000:]}"
            )
        time.sleep(0.05)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
