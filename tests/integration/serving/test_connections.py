"""No command connects to another machine or writes into the user's home folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccr_deploy.engines.store import EngineStore
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle

ROOT = Path(__file__).parents[3]
HARMLESS = {"ldconfig", "gcc", "cc", "ld", "objdump", "uname", "nvidia-smi"}
"""What Python's ctypes and platform start, and the driver's tool."""
# Python imports it at the start of each process. What it records does not take place.
WATCHER = """
import os, sys

def watch(event, arguments):
    if event == "socket.connect" or event.startswith("socket.send"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else "localhost"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        record(f"program {os.path.basename(os.fsdecode(arguments[0] or arguments[1][0]))}")
        return
    elif event == "os.system":
        record(f"program {arguments[0]}")
        return
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if isinstance(host, str) and host not in ("localhost", "::1", "0.0.0.0", "") and host[:4] != "127.":
        record(f"host {host}")
        raise PermissionError(f"a test refuses {event} to {host}")

def record(line):
    with open(os.environ["WATCHED"], "a") as file:
        file.write(line + "\\n")

sys.addaudithook(watch)
"""


class Watched:
    """A home folder, and the connections and programs that processes with it start."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._file = folder / "watched"
        watcher = folder / "watcher"
        watcher.mkdir()
        (watcher / "sitecustomize.py").write_text(WATCHER)
        monkeypatch.setenv("PYTHONPATH", str(watcher))
        monkeypatch.setenv("WATCHED", str(self._file))
        monkeypatch.setenv("HOME", str(self.home))
        for variable in ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME"):  # OpenVINO sends nothing in CI
            monkeypatch.delenv(variable, raising=False)

    def hosts(self) -> set[str]:
        """The other machines that were asked for so far."""
        return self._recorded("host")

    def programs(self) -> set[str]:
        """The programs that were started so far."""
        return self._recorded("program")

    def _recorded(self, kind: str) -> set[str]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return {line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def python(*arguments: object) -> str:
    """Run Python, and return its stderr."""
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_openvino_alone_would_connect_and_write(watched: Watched) -> None:
    """The test above can fail: OpenVINO alone does connect and write."""
    python("-c", "import openvino")
    assert "www.google-analytics.com" in watched.hosts()
    assert (watched.home / "intel" / "openvino_ga_cid").exists()


def test_no_command_connects_or_writes(watched: Watched, tiny_bundle: Bundle, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    folder, payload, image = tiny_bundle.path, tmp_path / "image.ccr", tmp_path / "image.png"
    Image.fromarray(np.full((32, 48, 3), 99, np.uint8)).save(image)
    to = ("--target", "cpu-openvino", "--engines", store.path)
    for command in (
        ("doctor",),
        ("build-engine", folder, "--target", "cpu", "--engines", store.path),
        ("build-engine", folder, *to),
        ("encode", "--bundle", folder, *to, image, "--output", payload),
        ("classify", "--bundle", folder, *to, payload),
    ):
        assert "telemetry" not in python("-m", "ccr_deploy", *command)
    with ServerProcess(tiny_bundle, store, "--target", "cpu-openvino") as server:
        server.wait_for("ready")
        with server.http() as client:
            assert client.is_server_ready()
    assert server.errors == ""
    assert watched.hosts() == set()
    assert watched.programs() <= HARMLESS
    assert list(watched.home.iterdir()) == []


@pytest.mark.parametrize(("chosen", "found"), [(None, "1"), ("0", "0")])
def test_onnxruntimes_telemetry_is_disabled_unless_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, found: str
) -> None:
    """Python's audit does not see sockets of native code, so the test checks the environment variable."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if chosen is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", chosen)
    python("-c", f"import os, ccr_deploy; assert os.environ['ORT_DISABLE_TELEMETRY'] == '{found}'")
