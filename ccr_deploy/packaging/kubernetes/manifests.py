"""Which objects make a server: by Kubernetes alone, and by KServe.

They are plain dictionaries and lists under the names of Kubernetes' own API, in the order of the YAML; the
tests check them by the schemas of every supported version.
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
"""How long building engines may take before a roll-out counts as failed."""
_KSERVE_CONTAINER = "kserve-container"
"""The name by which KServe knows the container that answers."""


def deployment_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return what runs the server by Kubernetes alone, by the names of the files to write."""
    server = _Server(settings, contract_id, "server")
    manifests = {"deployment.yaml": _deployment(server), "service.yaml": _service(server), **_common(server)}
    if settings.scales:
        manifests["autoscaler.yaml"] = _autoscaler(server)
    return manifests


def kserve_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return what runs the server by KServe, which makes Deployment, Service and autoscaler of it."""
    server = _Server(settings, contract_id, "predictor")
    return {"inference-service.yaml": _inference_service(server), **_common(server)}


@dataclass(frozen=True)
class _Server:
    """What the objects of one server have in common: names, labels, annotations."""

    settings: DeploymentSettings
    contract_id: str
    component: str

    @property
    def labels(self) -> dict[str, str]:
        """Those by which its pods are found."""
        return {
            "app.kubernetes.io/name": "ccr-deploy",
            "app.kubernetes.io/instance": self.settings.name,
            "app.kubernetes.io/component": self.component,
        }

    @property
    def pod_annotations(self) -> dict[str, str]:
        """Those of its pods: what they understand, and where Prometheus reads their metrics."""
        return {
            "ccr-deploy/contract-id": self.contract_id,
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(self.settings.http_port),
            "prometheus.io/path": "/metrics",
        }

    def manifest(
        self, api: str, spec: Fields, *, name: str | None = None, annotations: Mapping[str, str] | None = None
    ) -> Fields:
        """An object of this server.

        Args:
            api: Its API with the version, and its kind (``"apps/v1 Deployment"``).
            spec: What it is.
            name: What it is called, if not as the server.
            annotations: Those beside the contract id.
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
        **given(replicas=None if settings.scales else settings.replicas_min),  # else the autoscaler's
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
    """The old pod first where the new one needs what it has: a claim, or a GPU that may be the last."""
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
        # With Knative there would be no init container, and one port.
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
    """What either way of running the server needs."""
    manifests = {"disruption-budget.yaml": _disruption_budget(server)}
    if server.settings.engine_store == "claim":
        manifests["engine-store.yaml"] = _claim(server)
    return manifests


def _disruption_budget(server: _Server) -> Fields:
    """One pod at a time: a budget that says how many must stay would keep the last one's node for ever."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": server.labels},
    }
    return server.manifest("policy/v1 PodDisruptionBudget", spec)


def _claim(server: _Server) -> Fields:
    """A volume that outlives pods."""
    settings = server.settings
    spec = {
        "accessModes": ["ReadWriteOncePod"],
        **given(storageClassName=settings.storage_class),
        "resources": {"requests": {"storage": f"{settings.engine_store_gib}Gi"}},
    }
    return server.manifest("v1 PersistentVolumeClaim", spec, name=claim_name(settings))
