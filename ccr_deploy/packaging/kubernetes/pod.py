"""The pod: engines are built by an init container, then served, with nothing but two volumes to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.core.private_folder import SHARED_VARIABLE
from ccr_deploy.packaging.kubernetes.pod_objects import (
    Capabilities,
    ClaimReference,
    Container,
    ContainerPort,
    EmptyDir,
    EnvVar,
    Handler,
    HttpGet,
    LabelSelector,
    Lifecycle,
    PodSecurityContext,
    PodSpec,
    Probe,
    Resources,
    SeccompProfile,
    SecurityContext,
    Sleep,
    Toleration,
    TopologySpreadConstraint,
    Volume,
    VolumeMount,
)
from ccr_deploy.packaging.kubernetes.settings import ENGINES, TEMPORARY

if TYPE_CHECKING:
    from ccr_deploy.packaging.kubernetes.pod_objects import StringMap
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

USER = 10001
"""Any number but 0 would do: an image's files can be read by everyone."""
PRE_STOP_SECONDS = 5
"""A pod that is to end still gets requests until all nodes know; SIGTERM waits that long."""
DRAIN_SECONDS = 25
"""How long the server may answer requests in flight after SIGTERM."""
_SPARE_SECONDS = 10
_GPU = "nvidia.com/gpu"
_TEMPORARY_SIZE = "2Gi"


def pod_spec(settings: DeploymentSettings, selected: StringMap, server: str) -> PodSpec:
    """A pod whose replicas have the labels `selected`, and whose container `server` answers."""
    tolerations = (Toleration(key=_GPU, operator="Exists", effect="NoSchedule"),)
    return PodSpec(
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=PRE_STOP_SECONDS + DRAIN_SECONDS + _SPARE_SECONDS,
        security_context=PodSecurityContext(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=SeccompProfile(type="RuntimeDefault"),
        ),
        node_selector=dict(sorted(settings.node_labels.items())) or None,
        tolerations=tolerations if settings.gpus else None,
        topology_spread_constraints=(
            TopologySpreadConstraint(
                max_skew=1,
                topology_key="kubernetes.io/hostname",
                when_unsatisfiable="ScheduleAnyway",
                label_selector=LabelSelector(match_labels=selected),
            ),
        ),
        init_containers=(_builder(settings),),
        containers=(_server(settings, server),),
        volumes=(_engine_store(settings), Volume(name="tmp", empty_dir=EmptyDir(size_limit=_TEMPORARY_SIZE))),
    )


def claim_name(settings: DeploymentSettings) -> str:
    """What the claim of an engine store is called."""
    return f"{settings.name}-engines"


def build_arguments(bundle: str, target: str, engines: str) -> tuple[str, ...]:
    """The command that builds what is served."""
    stages = ("--stage", "encoder", "--stage", "classifier")
    return ("build-engine", bundle, "--target", target, *stages, "--engines", engines, "--no-timing")


def serve_arguments(
    bundle: str, target: str, engines: str, http_port: int, grpc_port: int
) -> tuple[str, ...]:
    """The command that serves what was built, to whoever reaches the container."""
    ports = ("--host", "0.0.0.0", "--http-port", str(http_port), "--grpc-port", str(grpc_port))  # noqa: S104
    return ("serve", bundle, "--target", target, "--engines", engines, *ports)


def _builder(settings: DeploymentSettings) -> Container:
    return Container(
        name="build-engines",
        image=settings.image,
        image_pull_policy="IfNotPresent",
        command=("ccr-deploy",),
        args=build_arguments(settings.bundle, settings.target, ENGINES),
        env=_environment(),
        resources=_resources(settings),
        security_context=_security(),
        volume_mounts=_mounts(),
    )


def _server(settings: DeploymentSettings, name: str) -> Container:
    return Container(
        name=name,
        image=settings.image,
        image_pull_policy="IfNotPresent",
        command=("ccr-deploy",),
        args=serve_arguments(
            settings.bundle, settings.target, ENGINES, settings.http_port, settings.grpc_port
        ),
        env=_environment(),
        ports=(  # KServe sends its Service's port 80 to the first
            ContainerPort(name="http", container_port=settings.http_port),
            ContainerPort(name="grpc", container_port=settings.grpc_port),
        ),
        # Engines are loaded and warmed up for up to five minutes; only then do the others ask.
        startup_probe=_probe("ready", period_seconds=5, failure_threshold=60),
        readiness_probe=_probe("ready", period_seconds=5, failure_threshold=2),
        liveness_probe=_probe("live", period_seconds=10, failure_threshold=6),
        lifecycle=Lifecycle(pre_stop=Handler(sleep=Sleep(seconds=PRE_STOP_SECONDS))),
        resources=_resources(settings),
        security_context=_security(),
        volume_mounts=_mounts(),
    )


def _probe(health: str, *, period_seconds: int, failure_threshold: int) -> Probe:
    return Probe(
        http_get=HttpGet(path=f"/v2/health/{health}", port="http"),
        period_seconds=period_seconds,
        timeout_seconds=4,
        failure_threshold=failure_threshold,
    )


def _environment() -> tuple[EnvVar, ...]:
    return (
        EnvVar(name="HOME", value=TEMPORARY),  # where libraries keep their caches
        EnvVar(name=SHARED_VARIABLE, value="1"),  # Kubernetes owns the volume of the engine store
    )


def _resources(settings: DeploymentSettings) -> Resources:
    """Requests equal to limits: whole cores that nobody else has, and no pod that is evicted first."""
    resources = {"cpu": str(settings.cores), "memory": f"{settings.memory_mib}Mi"}
    if settings.gpus:
        resources[_GPU] = str(settings.gpus)
    return Resources(requests=resources, limits=resources)


def _security() -> SecurityContext:
    return SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=Capabilities(drop=("ALL",)),
    )


def _mounts() -> tuple[VolumeMount, ...]:
    """The server writes to the engine store too: TensorRT-RTX keeps the kernels there that it compiled."""
    return (
        VolumeMount(name="engines", mount_path=ENGINES),
        VolumeMount(name="tmp", mount_path=TEMPORARY),
    )


def _engine_store(settings: DeploymentSettings) -> Volume:
    if settings.engine_store == "claim":
        return Volume(name="engines", persistent_volume_claim=ClaimReference(claim_name=claim_name(settings)))
    return Volume(name="engines", empty_dir=EmptyDir(size_limit=f"{settings.engine_store_gib}Gi"))
