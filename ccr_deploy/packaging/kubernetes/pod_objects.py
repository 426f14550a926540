"""A pod, as far as it is used here: Kubernetes' own objects, field by field (see `objects`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

StringMap = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EnvVar:
    """A variable in a container's environment."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class ContainerPort:
    """A port that a container listens on."""

    name: str
    container_port: int
    protocol: str = "TCP"


@dataclass(frozen=True, kw_only=True)
class HttpGet:
    """A request that is answered with 200 where all is well."""

    path: str
    port: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How often a container is asked, and how many answers in a row may be wrong."""

    http_get: HttpGet
    period_seconds: int
    timeout_seconds: int
    failure_threshold: int


@dataclass(frozen=True, kw_only=True)
class Sleep:
    """Seconds in which nothing happens."""

    seconds: int


@dataclass(frozen=True, kw_only=True)
class Handler:
    """What happens at a point of a container's life."""

    sleep: Sleep


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """What happens before a container hears SIGTERM."""

    pre_stop: Handler


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Linux's capabilities that a container does not have."""

    drop: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SecurityContext:
    """What a container may do."""

    allow_privilege_escalation: bool
    read_only_root_filesystem: bool
    capabilities: Capabilities


@dataclass(frozen=True, kw_only=True)
class SeccompProfile:
    """Which system calls there are."""

    type: str


@dataclass(frozen=True, kw_only=True)
class PodSecurityContext:
    """Who a pod's processes are."""

    run_as_non_root: bool
    run_as_user: int
    run_as_group: int
    fs_group: int
    fs_group_change_policy: str
    seccomp_profile: SeccompProfile


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a container is promised, and what it gets at most."""

    requests: StringMap
    limits: StringMap


@dataclass(frozen=True, kw_only=True)
class VolumeMount:
    """Where a container sees a volume."""

    name: str
    mount_path: str


@dataclass(frozen=True, kw_only=True)
class EmptyDir:
    """A volume that lives as long as its pod."""

    size_limit: str


@dataclass(frozen=True, kw_only=True)
class ClaimReference:
    """A volume that a claim brought."""

    claim_name: str


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume of a pod, of one of these kinds."""

    name: str
    empty_dir: EmptyDir | None = None
    persistent_volume_claim: ClaimReference | None = None


@dataclass(frozen=True, kw_only=True)
class Container:
    """A process in an image."""

    name: str
    image: str
    image_pull_policy: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[EnvVar, ...]
    ports: tuple[ContainerPort, ...] | None = None
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    resources: Resources
    security_context: SecurityContext
    volume_mounts: tuple[VolumeMount, ...]


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes that pods do not mind."""

    key: str
    operator: str
    effect: str


@dataclass(frozen=True, kw_only=True)
class LabelSelector:
    """The pods that have all of these labels."""

    match_labels: StringMap


@dataclass(frozen=True, kw_only=True)
class TopologySpreadConstraint:
    """How evenly pods are spread."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector


@dataclass(frozen=True, kw_only=True)
class PodSpec:
    """A pod: what runs before, what runs, where, and as whom."""

    automount_service_account_token: bool
    enable_service_links: bool
    termination_grace_period_seconds: int
    security_context: PodSecurityContext
    node_selector: StringMap | None
    tolerations: tuple[Toleration, ...] | None
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...]
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]
