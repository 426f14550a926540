"""The pod: an init container builds the engines, then the server runs; only two volumes are writable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccr_deploy.core.private_folder import SHARED_VARIABLE
from ccr_deploy.packaging.kubernetes.settings import ENGINES, TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

Fields = dict[str, Any]
"""A Kubernetes object, or a part of one, with the field names of its API."""

USER = 10001
"""Any number except 0 works: every user can read the image's files."""
PRE_STOP_SECONDS = 5
"""Delay before SIGTERM: a terminating pod receives requests until all nodes have removed its address."""
DRAIN_SECONDS = 25
"""How long the server may take to finish requests in flight after SIGTERM."""
_SPARE_SECONDS = 10
"""Time to close the engines after the last request, before Kubernetes kills the pod."""
_GPU = "nvidia.com/gpu"
TEMPORARY_VOLUME = {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}}
"""The volume for temporary files."""


def pod_spec(settings: DeploymentSettings, labels: Mapping[str, str], server: str) -> Fields:
    """Return the spec of a pod.

    Args:
        settings: the settings of the deployment.
        labels: the labels of all replicas.
        server: the name of the serving container.
    """
    return {
        **unprivileged_pod(settings),
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + DRAIN_SECONDS + _SPARE_SECONDS,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "initContainers": [_builder(settings), *_verifier(settings)],
        "containers": [_server(settings, server)],
        "volumes": [
            {"name": "engines", **_engine_store(settings)},
            TEMPORARY_VOLUME,
        ],
    }


def unprivileged_pod(settings: DeploymentSettings) -> Fields:
    """Return the fields of every pod: an unprivileged user, and the nodes to run on."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **given(
            nodeSelector=dict(sorted(settings.node_labels.items())),
            tolerations=settings.gpus and [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}],
        ),
    }


def claim_name(settings: DeploymentSettings) -> str:
    """Return the name of the engine store's claim."""
    return f"{settings.name}-engines"


def given(**fields: object) -> Fields:
    """Return the fields that are not empty; Kubernetes uses its default for a missing field."""
    return {name: value for name, value in fields.items() if value}


def _builder(settings: DeploymentSettings) -> Fields:
    """Return the init container that builds the engines; only a verification needs those of the baseline."""
    stages = () if settings.golden else ("--stage", "encoder", "--stage", "classifier")
    options = (*stages, "--engines", ENGINES, "--no-timing")
    return _container(settings, "build-engines", "build-engine", options, {})


def _verifier(settings: DeploymentSettings) -> list[Fields]:
    """Return the init container that verifies the engines, if there is a golden file."""
    if settings.golden is None:
        return []
    options = ("--golden", settings.golden, "--engines", ENGINES)
    return [_container(settings, "verify-engines", "verify", options, {})]


def _server(settings: DeploymentSettings, name: str) -> Fields:
    """Return the serving container, which listens on all addresses."""
    http, grpc = settings.http_port, settings.grpc_port
    ports = ("--host", "0.0.0.0", "--http-port", str(http), "--grpc-port", str(grpc))  # noqa: S104
    serving = {
        "ports": [  # KServe's Service forwards its port 80 to the first one
            {"name": "http", "containerPort": http, "protocol": "TCP"},
            {"name": "grpc", "containerPort": grpc, "protocol": "TCP"},
        ],
        # Loading and warming up may take five minutes; the other probes start after that.
        "startupProbe": _probe("ready", period_seconds=5, failure_threshold=60),
        "readinessProbe": _probe("ready", period_seconds=5, failure_threshold=2),
        "livenessProbe": _probe("live", period_seconds=10, failure_threshold=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }
    required = ("--require-verified",) if settings.golden else ()
    return _container(settings, name, "serve", ("--engines", ENGINES, *ports, *required), serving)


def _container(
    settings: DeploymentSettings, name: str, command: str, options: tuple[str, ...], serving: Fields
) -> Fields:
    """Return a container that runs a command of ccr-deploy on the bundle."""
    arguments = (command, settings.bundle, "--target", settings.target, *options)
    # The server writes to the engine store, too: TensorRT-RTX caches its compiled kernels there.
    mounts = ({"name": "engines", "mountPath": ENGINES},)
    return {**container(settings, name, arguments, mounts, gpus=settings.gpus), **serving}


def container(
    settings: DeploymentSettings,
    name: str,
    arguments: Sequence[str],
    mounts: Sequence[Fields],
    *,
    gpus: int,
) -> Fields:
    """Return a container that runs ccr-deploy, with a read-only file system.

    Args:
        settings: the settings of the deployment.
        name: the container's name.
        arguments: the arguments of ccr-deploy.
        mounts: the volumes that it reads or writes, in addition to that for temporary files.
        gpus: the number of GPUs.
    """
    # Requests equal limits: the pod gets exclusive cores and the QoS class Guaranteed, evicted last.
    resources = {"cpu": str(settings.cores), "memory": f"{settings.memory_mib}Mi"}
    if gpus:
        resources[_GPU] = str(gpus)
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["ccr-deploy"],
        "args": [*arguments],
        "env": [
            {"name": "HOME", "value": TEMPORARY},  # libraries write caches there
            {
                "name": SHARED_VARIABLE,
                "value": "1",
            },  # the engine store's volume belongs to root, not to the pod's user
        ],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": TEMPORARY}],
    }


def _probe(health: str, *, period_seconds: int, failure_threshold: int) -> Fields:
    return {
        "httpGet": {"path": f"/v2/health/{health}", "port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 4,
        "failureThreshold": failure_threshold,
    }


def _engine_store(settings: DeploymentSettings) -> Fields:
    if settings.engine_store == "claim":
        return {"persistentVolumeClaim": {"claimName": claim_name(settings)}}
    return {"emptyDir": {"sizeLimit": f"{settings.engine_store_gib}Gi"}}
