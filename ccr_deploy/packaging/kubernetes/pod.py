"""The pod: engines are built by an init container, then served, with nothing but two volumes to write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccr_deploy.core.private_folder import SHARED_VARIABLE
from ccr_deploy.packaging.kubernetes.settings import ENGINES, TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

Fields = dict[str, Any]
"""An object of Kubernetes, or a part of one, under its API's own names."""

USER = 10001
"""Any number but 0 would do: an image's files can be read by everyone."""
PRE_STOP_SECONDS = 5
"""A pod that is to end still gets requests until all nodes know; SIGTERM waits that long."""
DRAIN_SECONDS = 25
"""How long the server may answer requests in flight after SIGTERM."""
_SPARE_SECONDS = 10
_GPU = "nvidia.com/gpu"
_TEMPORARY_SIZE = "2Gi"


def pod_spec(settings: DeploymentSettings, labels: Mapping[str, str], server: str) -> Fields:
    """Return the spec of a pod.

    Args:
        settings: what the deployment is made from.
        labels: those that all replicas have.
        server: the name of the container that answers.
    """
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": PRE_STOP_SECONDS + DRAIN_SECONDS + _SPARE_SECONDS,
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
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "initContainers": [_builder(settings)],
        "containers": [_server(settings, server)],
        "volumes": [
            {"name": "engines", **_engine_store(settings)},
            {"name": "tmp", "emptyDir": {"sizeLimit": _TEMPORARY_SIZE}},
        ],
    }


def claim_name(settings: DeploymentSettings) -> str:
    """Return what the claim of an engine store is called."""
    return f"{settings.name}-engines"


def given(**fields: object) -> Fields:
    """Return the fields that hold something; an API takes the others' absence for its default."""
    return {name: value for name, value in fields.items() if value}


def _builder(settings: DeploymentSettings) -> Fields:
    """The container that builds what is served."""
    options = ("--stage", "encoder", "--stage", "classifier", "--engines", ENGINES, "--no-timing")
    return _container(settings, "build-engines", "build-engine", options, {})


def _server(settings: DeploymentSettings, name: str) -> Fields:
    """The container that serves what was built, to whoever reaches it."""
    http, grpc = settings.http_port, settings.grpc_port
    ports = ("--host", "0.0.0.0", "--http-port", str(http), "--grpc-port", str(grpc))  # noqa: S104
    serving = {
        "ports": [  # KServe sends its Service's port 80 to the first
            {"name": "http", "containerPort": http, "protocol": "TCP"},
            {"name": "grpc", "containerPort": grpc, "protocol": "TCP"},
        ],
        # Engines are loaded and warmed up for up to five minutes; only then do the others ask.
        "startupProbe": _probe("ready", period_seconds=5, failure_threshold=60),
        "readinessProbe": _probe("ready", period_seconds=5, failure_threshold=2),
        "livenessProbe": _probe("live", period_seconds=10, failure_threshold=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }
    return _container(settings, name, "serve", ("--engines", ENGINES, *ports), serving)


def _container(
    settings: DeploymentSettings, name: str, command: str, options: tuple[str, ...], serving: Fields
) -> Fields:
    """A container that runs one of this program's commands on the bundle."""
    # Requests equal to limits: whole cores that nobody else has, and no pod that is evicted first.
    resources = {"cpu": str(settings.cores), "memory": f"{settings.memory_mib}Mi"}
    if settings.gpus:
        resources[_GPU] = str(settings.gpus)
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["ccr-deploy"],
        "args": [command, settings.bundle, "--target", settings.target, *options],
        "env": [
            {"name": "HOME", "value": TEMPORARY},  # where libraries keep their caches
            {"name": SHARED_VARIABLE, "value": "1"},  # Kubernetes owns the volume of the engine store
        ],
        **serving,
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The server writes to the engine store too: TensorRT-RTX keeps the kernels there that it compiled.
        "volumeMounts": [
            {"name": "engines", "mountPath": ENGINES},
            {"name": "tmp", "mountPath": TEMPORARY},
        ],
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
