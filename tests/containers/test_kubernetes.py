"""The generated manifests by ``podman kube play``, which stands in for a cluster.

Podman 4.3 plays the Deployment: the init container, the server, their users, read-only roots, capabilities,
limits and volumes. It knows no Service, autoscaler or disruption budget, has one replica, and ignores the
probes (of the liveness probe it makes a health check by curl on port 0, which nobody runs), `preStop`,
`fsGroup` and `runAsNonRoot`. What is altered or done here for that reason:

- It publishes the ports that a container names on every address of the host: they get free ones of 127.0.0.1.
- It makes an emptyDir as the image's folder of that name is. Kubernetes' belongs to root and the group that
  `fsGroup` names, and everyone may write to it: the volumes are there before, made so.
- It removes an init container that ended: an annotation of podman's own keeps it, to be looked at.
- Podman does not run the probes: the test does.
"""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from benchmarks.hosts.clients import CLIENTS
from benchmarks.hosts.podman import Container
from benchmarks.hosts.processes import PATIENCE_SECONDS, free_ports
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.hosts.podman import Podman
    from ccr_deploy.bundle.reader import Bundle
    from tests.containers.library import LibraryAnswers

KEEP_INIT_CONTAINERS = {"io.podman.annotations.init.container.type": "always"}
USER = 10001
MIB = 2**20


@dataclass(frozen=True)
class Played:
    """The Deployment's one pod."""

    podman: Podman
    manifest: dict[str, Any]
    ports: dict[str, int]

    @property
    def pod(self) -> dict[str, Any]:
        return self.manifest["spec"]["template"]["spec"]

    def container(self, name: str) -> Container:
        pod = self.podman("pod", "ps", "--format", "{{.Name}}").stdout.strip()
        return Container(self.podman, f"{pod}-{name}")

    def address(self, protocol: str) -> str:
        return f"127.0.0.1:{self.ports[protocol]}"

    def probe(self, name: str) -> int:
        """Do what a kubelet does for a probe of the server, and return the status."""
        asked = self.pod["containers"][0][name]["httpGet"]
        address = f"http://{self.address(asked['port'])}{asked['path']}"
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as reply:
            return int(reply.status)


@pytest.fixture(scope="module")
def manifest(bundle: Bundle, cpu_image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Deployment as ``ccr-deploy package`` writes it."""
    folder = tmp_path_factory.mktemp("manifests") / "manifests"
    options = ("--format", "kubernetes", "--output", folder, "--target", "cpu", "--image", cpu_image)
    outcome = run("package", bundle.path, *options)
    assert outcome.status == 0, outcome.stderr
    return yaml.safe_load((folder / "deployment" / "deployment.yaml").read_text(encoding="utf-8"))


def altered(manifest: dict[str, Any], ports: dict[str, int]) -> dict[str, Any]:
    """Return the manifest for podman: see this file's head."""
    copy = yaml.safe_load(yaml.safe_dump(manifest))
    copy["metadata"]["annotations"] |= KEEP_INIT_CONTAINERS
    for port in copy["spec"]["template"]["spec"]["containers"][0]["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": ports[port["name"]]}
    return copy


@pytest.fixture(scope="module")
def volumes(podman: Podman, cpu_image: str, manifest: dict[str, Any]) -> Iterator[list[str]]:
    """The pod's volumes, empty, with the owner and mode that Kubernetes gives to them."""
    pod = manifest["spec"]["template"]["spec"]
    names = [volume["name"] for volume in pod["volumes"]]
    try:
        for name in names:
            podman("volume", "create", name)
        paths = {name: f"/volumes/{name}" for name in names}
        mounts = [word for name, path in paths.items() for word in ("--volume", f"{name}:{path}:nocopy")]
        every = " ".join(paths.values())
        prepare = f"chown 0:{pod['securityContext']['fsGroup']} {every} && chmod 2777 {every}"
        options = ("--user", "0", "--cap-add", "chown,fowner,fsetid", *mounts, "--entrypoint", "sh")
        with podman.container(cpu_image, "-c", prepare, options=options) as container:
            assert container.wait() == 0, container.logs
        yield names
    finally:
        podman("volume", "rm", "--force", *names)


@pytest.fixture(scope="module")
def played(
    podman: Podman, manifest: dict[str, Any], volumes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    ports = dict(zip(CLIENTS, free_ports(2), strict=True))
    file = tmp_path_factory.mktemp("played") / "deployment.yaml"
    file.write_text(yaml.safe_dump(altered(manifest, ports)), encoding="utf-8")
    podman("network", "create", "--disable-dns", "pods")
    try:
        podman("kube", "play", "--network", "pods", file)
        pod = Played(podman, manifest, ports)
        yield pod
        podman("kube", "down", file)
        assert podman("ps", "--all", "--quiet").stdout == ""
        assert podman("pod", "ps", "--quiet").stdout == ""
    finally:
        podman("pod", "rm", "--all", "--force", "--time", "0")
        podman("network", "rm", "--force", "pods")


@pytest.fixture(scope="module")
def ready(played: Played) -> Played:
    """The pod, when its server says that it is ready."""
    server = played.container("server")
    ask = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v2/health/ready')"
    while server.execute("python3", "-c", ask).returncode:
        assert server.is_running, server.logs
    return played


def test_the_init_container_builds_what_the_server_serves(ready: Played, answers: LibraryAnswers) -> None:
    builder = ready.container("build-engines")
    assert builder.inspect("{{.State.ExitCode}} {{.State.Running}}") == "0 false"
    assert "built in" in builder.logs
    for protocol in CLIENTS:
        answers.check(ready.address(protocol), protocol)


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_is_answered(ready: Played, probe: str) -> None:
    assert ready.probe(probe) == 200


@pytest.mark.parametrize("name", ["build-engines", "server"])
def test_a_container_has_the_confinement_and_limits_of_its_manifest(ready: Played, name: str) -> None:
    container = ready.container(name)
    (wanted,) = (
        each for each in (*ready.pod["initContainers"], *ready.pod["containers"]) if each["name"] == name
    )
    user = ready.pod["securityContext"]
    assert container.inspect("{{.Config.User}}") == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert container.inspect("{{.HostConfig.ReadonlyRootfs}}") == "true"
    assert container.inspect("{{.EffectiveCaps}} {{.BoundingCaps}}") == "[] []"
    assert container.inspect("{{.HostConfig.SecurityOpt}}") == "[no-new-privileges]"
    limits = wanted["resources"]["limits"]
    assert container.inspect("{{.HostConfig.Memory}}") == str(int(limits["memory"].removesuffix("Mi")) * MIB)
    assert container.inspect("{{.HostConfig.NanoCpus}}") == str(int(limits["cpu"]) * 10**9)


def test_the_server_writes_only_to_its_volumes(ready: Played) -> None:
    server = ready.container("server")
    status = server.execute("cat", "/proc/1/status").stdout
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    for volume in ready.pod["containers"][0]["volumeMounts"]:
        path = volume["mountPath"]
        assert server.execute("stat", "--format", "%u:%g %a", path).stdout == f"0:{USER} 2777\n"
        assert server.execute("touch", f"{path}/file").returncode == 0
    for path in ("/bundle/file", "/opt/ccr-deploy/file"):
        assert "Read-only file system" in server.execute("touch", path).stderr
