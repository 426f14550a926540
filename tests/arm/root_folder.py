"""A Debian for 64-bit Arm in a folder, with ccr-deploy installed as in the image `cpu`; kept between runs.

Commands in it run in separate mount and process namespaces, so that a run never leaves a mount or a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.hosts.pip_settings import PipSettings
from tests.arm.processors import CORTEX_A76, Processor
from tests.support.left_processes import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
CONTAINER = PROJECT / "deploy" / "container"
SUITE = "bookworm"
"""The Debian of the base image in the Dockerfile."""
PACKAGES = "python3,python3-venv,ca-certificates"
REQUIREMENTS = "requirements-cpu.txt"
PREFIX = Path("/opt/ccr-deploy")
# The kernel ends the command if this process ends, and what runs in the command's namespace with it.
NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine that is mounted in the root folder."""

    source: Path
    target: Path
    mode: Literal["ro", "rw"] = "ro"


@contextlib.contextmanager
def arm_programs_run() -> Iterator[Path]:
    """Let the kernel run Arm programs with qemu within the context; yield the entry in binfmt_misc.

    Raises:
        RuntimeError: if this machine does not allow it.
    """
    register = [shutil.which("unshare") or "unshare", "--mount", "sh", str(HERE / "register.sh")]
    with subprocess.Popen(
        register,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is this process's to handle
    ) as registration:
        assert registration.stdin
        assert registration.stdout
        entry = registration.stdout.readline().decode().strip()
        if not entry:
            raise RuntimeError("qemu-aarch64-static cannot be registered: see scripts/check_arm_tools.sh")
        try:
            yield Path(entry)
        finally:
            registration.stdin.close()


class RootFolder:
    """The root folder at `path`; needs `arm_programs_run`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Create the folder if it does not exist; Arm packages are configured in emulation."""
        if self.path.exists():
            return
        unfinished = self.path.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}"]
        bare = {"PATH": _path()}
        subprocess.run([*NAMESPACES, "debootstrap", *options, SUITE, str(unfinished)], env=bare, check=True)
        second_stage = 'chroot "$1" /debootstrap/debootstrap --second-stage || exit'
        subprocess.run([*NAMESPACES, "sh", "-ec", second_stage, "sh", str(unfinished)], env=bare, check=True)
        unfinished.rename(self.path)

    def install(self, wheel: Path) -> None:
        """Run the image's `install.sh`, unless it has already installed this wheel.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        inputs = [wheel, CONTAINER / "install.sh", CONTAINER / REQUIREMENTS]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()
        stamp = self.path.with_suffix(".installed")
        if stamp.exists() and stamp.read_text() == digest:
            return
        stamp.unlink(missing_ok=True)
        shutil.rmtree(self.inside(PREFIX), ignore_errors=True)
        pip = PipSettings.of_this_machine()
        standard = (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs"))
        # The containing folder first: a mount hides what was mounted in its place before.
        needed = sorted({path for path in (*standard, *pip.paths) if path.exists()})
        mounts = [Mount(path, path) for path in needed]
        mounts += [Mount(wheel.parent, Path("/wheels")), Mount(CONTAINER, Path("/container"))]
        command = ["sh", "/container/install.sh", "/wheels", f"/container/{REQUIREMENTS}"]
        subprocess.run(self.command(command, mounts), env=self.environment(pip.environment), check=True)
        stamp.write_text(digest)

    def inside(self, path: Path) -> Path:
        """Return the path on this machine of a path in the root folder."""
        return self.path / path.relative_to("/")

    def command(
        self, words: Sequence[object], mounts: Sequence[Mount] = (), processor: Processor = CORTEX_A76
    ) -> list[str]:
        """Build the command line that runs a command in the root folder.

        Args:
            words: the program and its arguments.
            mounts: the files and folders of this machine to mount.
            processor: the processor in ``/proc/cpuinfo`` and ``/sys``; `environment` makes qemu emulate it.
        """
        files = self.path.with_name(f"processor-{processor.qemu_name}")
        processor.write(files)
        seen = [word for mount in mounts for word in (str(mount.source), str(mount.target), mount.mode)]
        enter = ["sh", str(HERE / "enter.sh"), str(self.path), str(files), *seen, "--"]
        return [*NAMESPACES, *enter, *map(str, words)]

    def environment(
        self, changes: Mapping[str, str] | None = None, processor: Processor = CORTEX_A76
    ) -> dict[str, str]:
        """Return the environment of a command in the root folder, without variables of this machine."""
        run = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
        return {
            "PATH": f"{PREFIX}/bin:{_path()}",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "QEMU_CPU": processor.qemu_name,
            **run,
            **(changes or {}),
        }


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel into an empty folder."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
