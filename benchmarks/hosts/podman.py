"""Podman with separate storage: no other user sees its images and containers, and they are removed."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import resource
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.hosts.pip_settings import PipSettings
from benchmarks.hosts.processes import PATIENCE_SECONDS, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CERTIFICATES = Path("/etc/ssl/certs")
NETWORK_NAMESPACES = "/run/netns"
"""The folder that podman mounts for the networks of all containers."""
NETWORK = "closed"
"""A network between host and containers, without a connection to other networks."""
PRODUCTION = (
    *("--user", "10001:10001", "--read-only", "--tmpfs", "/tmp:mode=1777"),  # noqa: S108
    *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
    *("--cpus", "1", "--memory", "512m", "--memory-swap", "512m"),
    *("--network", NETWORK),
)
"""The options with which the documents run a container, and the limits of a small machine."""


class Podman:
    """The command ``podman`` with its configuration, storage and networks in one folder.

    It uses runc, because crun does not run on machines with both versions of cgroups, and cgroupfs, because
    systemd may be missing. Limits on open files and processes are not above this process's limits, because
    not every machine lets a container raise them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        limits = [f"nofile={_most(resource.RLIMIT_NOFILE)}", f"nproc={_most(resource.RLIMIT_NPROC)}"]
        (folder / "containers.conf").write_text(
            f"""
[containers]
default_ulimits = {limits}
log_driver = "k8s-file"

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
static_dir = "{folder}/engine"
tmp_dir = "{folder}/state"
volume_path = "{folder}/volumes"

[network]
network_config_dir = "{folder}/networks"
""",
            encoding="utf-8",
        )
        (folder / "storage.conf").write_text(
            f"""
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
""",
            encoding="utf-8",
        )
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # a timer would not use this configuration
        }
        self._mounted_before = _mounts()
        self._make_network()
        self._pip = PipSettings.of_this_machine()
        (folder / "pip.conf").write_text(self._pip.configuration, encoding="utf-8")

    def _make_network(self) -> None:
        """Write the description of `NETWORK`, with a random subnet and a random interface name.

        Podman would choose the first subnet that is free in its own storage, and another network of this
        machine may already use it.
        """
        subnet = ipaddress.ip_network((0x0AC00000 + (secrets.randbelow(2**14) << 8), 24))
        description = {
            "name": NETWORK,
            "id": secrets.token_hex(32),
            "driver": "bridge",
            "network_interface": f"ccr{secrets.token_hex(4)}",
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": str(subnet), "gateway": str(subnet[1])}],
            "ipv6_enabled": False,
            "internal": True,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
        networks = self.folder / "networks"
        networks.mkdir(exist_ok=True)
        (networks / f"{NETWORK}.json").write_text(json.dumps(description), encoding="utf-8")

    def __call__(
        self, *arguments: object, check: bool = True, timeout: float = PATIENCE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run ``podman ARGUMENTS`` until it exits.

        Args:
            arguments: the arguments of podman.
            check: whether to raise an error if podman fails.
            timeout: time limit in seconds.

        Raises:
            RuntimeError: if podman fails and `check` is set; the message contains its output.
        """
        command = ["podman", *(str(argument) for argument in arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Podman's monitors write into the folder that it was started in.
        with started(command, env=self.environment, cwd=self.folder, **streams) as process:
            output, errors = process.communicate(timeout=timeout)
        if check and process.returncode:
            message = f"{' '.join(command)}: status {process.returncode}\n{output}{errors}"
            raise RuntimeError(message)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def build(
        self, context: Path, tag: str, target: str, arguments: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Build a stage of the Dockerfile, with this machine's certificates and pip settings mounted.

        Args:
            context: the build context: the folder of the Dockerfile and the files that it copies.
            tag: the name of the image.
            target: the stage.
            arguments: the build arguments by name.
        """
        needed = [path for path in (CERTIFICATES, *self._pip.paths) if path.exists()]
        outermost = [path for path in needed if not any(other in path.parents for other in needed)]
        inside = {self.folder / "pip.conf": Path("/etc/pip.conf")} | {path: path for path in outermost}
        mounts = [word for here, there in inside.items() for word in ("--volume", f"{here}:{there}:ro")]
        values = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        # Only Docker's own format has a health check.
        options = ("--format", "docker", "--pull-never", "--network", "host", "--target", target)
        return self("build", *options, *mounts, *values, "--tag", tag, context, timeout=900)

    @contextlib.contextmanager
    def container(self, image: str, *command: str, options: Sequence[object] = ()) -> Iterator[Container]:
        """Start a container as in production, and remove it at the end, even if it is running.

        Args:
            image: the image's tag.
            command: the arguments of its entry point.
            options: further options of ``podman run``; they override those of `PRODUCTION`.
        """
        number = self("run", "--detach", *PRODUCTION, *options, image, *command).stdout.strip()
        container = Container(self, number)
        try:
            yield container
        finally:
            self("rm", "--force", "--time", "0", number)

    @contextlib.contextmanager
    def volume(self, *options: str) -> Iterator[str]:
        """Make a volume that is removed at the end."""
        name = self("volume", "create", *options).stdout.strip()
        try:
            yield name
        finally:
            self("volume", "rm", "--force", name)

    def clear(self) -> None:
        """Remove every container, image, volume and network, and the mounts that podman made."""
        for command in (
            ("pod", "rm", "--all", "--force", "--time", "0"),
            ("rm", "--all", "--force", "--time", "0"),
            ("volume", "prune", "--force"),
            ("rmi", "--all", "--force"),
            ("network", "prune", "--force"),
        ):
            self(*command, check=False)
        new = [mount for mount in _mounts() if mount not in self._mounted_before]
        mounts = [mount for mount in new if mount.startswith(f"{self.folder}/")]
        if NETWORK_NAMESPACES in new and not any(Path(NETWORK_NAMESPACES).iterdir()):
            mounts.append(NETWORK_NAMESPACES)
        for mount in reversed(mounts):
            subprocess.run(["umount", mount], check=True)  # noqa: S607
        shutil.rmtree(self.folder / "storage")


def _mounts() -> list[str]:
    """Return all mount points, in the order in which they were mounted."""
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]


def _most(limit: int) -> str:
    """Return a limit for containers, soft and hard: this process's hard limit, at most 1,024."""
    _, hard = resource.getrlimit(limit)
    most = 1024 if hard == resource.RLIM_INFINITY else min(hard, 1024)
    return f"{most}:{most}"


@dataclass(frozen=True)
class Container:
    """A container that was started."""

    podman: Podman
    number: str

    def inspect(self, template: str) -> str:
        """Return properties of the container, selected by a Go template."""
        return self.podman("inspect", "--format", template, self.number).stdout.strip()

    @property
    def address(self) -> str:
        """Its IP address on `NETWORK`."""
        return self.inspect(f"{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}")

    @property
    def is_running(self) -> bool:
        """Whether its first process still runs."""
        return self.inspect("{{.State.Running}}") == "true"

    @property
    def logs(self) -> str:
        """Its output on stdout and stderr so far."""
        found = self.podman("logs", self.number)
        return found.stdout + found.stderr

    def is_healthy(self) -> bool:
        """Run the image's health check once; in production, it is run every ten seconds."""
        return self.podman("healthcheck", "run", self.number, check=False).returncode == 0

    def wait_until_healthy(self) -> None:
        """Repeat the health check until it passes.

        Raises:
            RuntimeError: if the container exits or takes too long; the message contains its output.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_healthy():
            if not self.is_running or time.monotonic() > deadline:
                message = f"the container exited or was not healthy in time:\n{self.logs}"
                raise RuntimeError(message)
            time.sleep(0.2)

    def wait(self) -> int:
        """Wait until the container exits, and return its exit status."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.is_running:  # quicker than `podman wait`
            assert time.monotonic() < deadline, self.logs
            time.sleep(0.1)
        return int(self.inspect("{{.State.ExitCode}}"))

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        return self.podman("exec", self.number, *command, check=False)
