"""The Kubernetes objects of a server, with and without KServe.

Objects are plain dictionaries and lists with the field names of Kubernetes' API, in the order of the YAML.
The tests validate them with the schemas of every supported version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccr_deploy.packaging.kubernetes.pod import claim_name, given, pod_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.packaging.kubernetes.pod import Fields
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

_BUILD_SECONDS = 1800
"""How long building engines may take before Kubernetes reports the rollout as failed."""
_KSERVE_CONTAINER = "kserve-container"
"""The name that KServe requires of the serving container."""


def deployment_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return the objects that run the server without KServe, by file name."""
    server = _Server(settings, contract_id, "server")
    manifests = {"deployment.yaml": _deployment(server), "service.yaml": _service(server), **_common(server)}
    if settings.scales:
        manifests["autoscaler.yaml"] = _autoscaler(server)
    return manifests


def kserve_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return the objects for KServe, which creates the Deployment, Service and autoscaler, by file name."""
    server = _Server(settings, contract_id, "predictor")
    return {"inference-service.yaml": _inference_service(server), **_common(server)}


@dataclass(frozen=True)
class _Server:
    """The common parts of one server's objects: names, labels, annotations."""

    settings: DeploymentSettings
    contract_id: str
    component: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels that select the server's pods."""
        return {
            "app.kubernetes.io/name": "ccr-deploy",
            "app.kubernetes.io/instance": self.settings.name,
            "app.kubernetes.io/component": self.component,
        }

    @property
    def pod_annotations(self) -> dict[str, str]:
        """The annotations of the pods: the code contract, and where Prometheus reads metrics."""
        return {
            "ccr-deploy/contract-id": self.contract_id,
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(self.settings.http_port),
            "prometheus.io/path": "/metrics",
        }

    def manifest(
        self, api: str, spec: Fields, *, name: str | None = None, annotations: Mapping[str, str] | None = None
    ) -> Fields:
        """Return an object of this server.

        Args:
            api: API version and kind, as in ``"apps/v1 Deployment"``.
            spec: the object's spec.
            name: the object's name; the server's name by default.
            annotations: annotations in addition to the contract id.
        """
        version, kind = api.split()
        metadata = {
            "name": name or self.settings.name,
            "labels": self.labels,
            "annotations": {"ccr-deploy/contract-id": self.contract_id, **(annotations or {})},
        }
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _deployment(server: _Server) -> Fields:
    settings = server.settings
    spec = {
        **given(
            replicas=None if settings.scales else settings.replicas_min
        ),  # the autoscaler sets the number if there is one
        "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": _BUILD_SECONDS,
        "strategy": _strategy(settings),
        "selector": {"matchLabels": server.labels},
        "template": {
            "metadata": {"labels": server.labels, "annotations": server.pod_annotations},
            "spec": pod_spec(settings, server.labels, server="server"),
        },
    }
    return server.manifest("apps/v1 Deployment", spec)


def _strategy(settings: DeploymentSettings) -> Fields:
    """Stop the old pod first if the new one needs its resources: a claim, or a GPU that may be the last."""
    if settings.engine_store == "claim":
        return {"type": "Recreate"}
    missing = 1 if settings.gpus else 0
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": missing, "maxSurge": 1 - missing}}


def _service(server: _Server) -> Fields:
    settings = server.settings
    ports = (("http", settings.http_port, "http"), ("grpc", settings.grpc_port, "kubernetes.io/h2c"))
    spec = {
        "type": "ClusterIP",
        "selector": server.labels,
        "ports": [
            {"name": name, "port": port, "targetPort": name, "appProtocol": protocol}
            for name, port, protocol in ports
        ],
    }
    return server.manifest("v1 Service", spec)


def _autoscaler(server: _Server) -> Fields:
    settings = server.settings
    target = {"type": "Utilization", "averageUtilization": settings.cpu_percent}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": settings.name},
        "minReplicas": settings.replicas_min,
        "maxReplicas": settings.replicas_max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    return server.manifest("autoscaling/v2 HorizontalPodAutoscaler", spec)


def _inference_service(server: _Server) -> Fields:
    settings = server.settings
    annotations = {
        # Knative would allow no init container and only one port.
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "hpa",
    }
    predictor = {
        **pod_spec(settings, server.labels, server=_KSERVE_CONTAINER),
        "minReplicas": settings.replicas_min,
        "maxReplicas": settings.replicas_max,
        "scaleMetric": "cpu",
        "scaleTarget": settings.cpu_percent,
        "deploymentStrategy": _strategy(settings),
        "labels": server.labels,
        "annotations": server.pod_annotations,
    }
    api = "serving.kserve.io/v1beta1 InferenceService"
    return server.manifest(api, {"predictor": predictor}, annotations=annotations)


def _common(server: _Server) -> dict[str, Fields]:
    """Return the objects that both variants need."""
    manifests = {"disruption-budget.yaml": _disruption_budget(server)}
    if server.settings.engine_store == "claim":
        manifests["engine-store.yaml"] = _claim(server)
    return manifests


def _disruption_budget(server: _Server) -> Fields:
    """Allow one disrupted pod at a time.

    With `minAvailable` instead, a single pod could never be evicted, and its node never drained.
    """
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": server.labels},
    }
    return server.manifest("policy/v1 PodDisruptionBudget", spec)


def _claim(server: _Server) -> Fields:
    """Return the claim of a volume that outlives the pods."""
    settings = server.settings
    spec = {
        "accessModes": ["ReadWriteOncePod"],
        **given(storageClassName=settings.storage_class),
        "resources": {"requests": {"storage": f"{settings.engine_store_gib}Gi"}},
    }
    return server.manifest("v1 PersistentVolumeClaim", spec, name=claim_name(settings))
