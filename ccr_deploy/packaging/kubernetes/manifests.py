"""Which objects make a server: by Kubernetes alone, and by KServe."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from ccr_deploy.packaging.kubernetes.objects import (
    AutoscalerSpec,
    ClaimResources,
    ClaimSpec,
    DeploymentSpec,
    DisruptionBudgetSpec,
    InferenceServiceSpec,
    Manifest,
    Metadata,
    Metric,
    MetricTarget,
    PodTemplate,
    Predictor,
    ResourceMetric,
    RollingUpdate,
    ScaleTarget,
    ServicePort,
    ServiceSpec,
    Strategy,
)
from ccr_deploy.packaging.kubernetes.pod import claim_name, pod_spec
from ccr_deploy.packaging.kubernetes.pod_objects import LabelSelector

if TYPE_CHECKING:
    from ccr_deploy.packaging.kubernetes.objects import Spec
    from ccr_deploy.packaging.kubernetes.pod_objects import StringMap
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

_BUILD_SECONDS = 1800
"""How long building engines may take before a roll-out counts as failed."""
_KSERVE_CONTAINER = "kserve-container"
"""The name by which KServe knows the container that answers."""


def deployment_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Manifest]:
    """What runs the server by Kubernetes alone, by the names of the files to write."""
    made = _Maker(settings, contract_id, "server")
    manifests = {
        "deployment.yaml": made.manifest(_deployment(settings, made)),
        "service.yaml": made.manifest(_service(settings, made.selected)),
        "disruption-budget.yaml": made.manifest(_disruption_budget(made.selected)),
    }
    if settings.scales:
        manifests["autoscaler.yaml"] = made.manifest(_autoscaler(settings))
    return manifests | _claim(settings, made)


def kserve_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Manifest]:
    """What runs the server by KServe, which makes Deployment, Service and autoscaler of it."""
    made = _Maker(settings, contract_id, "predictor")
    annotations = {
        # With Knative there would be no init container, and one port.
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "hpa",
    }
    return {
        "inference-service.yaml": made.manifest(_inference_service(settings, made), annotations),
        "disruption-budget.yaml": made.manifest(_disruption_budget(made.selected)),
    } | _claim(settings, made)


class _Maker:
    """What the objects of one server have in common: names, labels, annotations."""

    def __init__(self, settings: DeploymentSettings, contract_id: str, component: str) -> None:
        self._name = settings.name
        self.selected = {
            "app.kubernetes.io/name": "ccr-deploy",
            "app.kubernetes.io/instance": settings.name,
            "app.kubernetes.io/component": component,
        }
        self._contract = {"ccr-deploy/contract-id": contract_id}
        self.pod_annotations = {
            **self._contract,
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(settings.http_port),
            "prometheus.io/path": "/metrics",
        }

    def manifest(self, spec: Spec, annotations: StringMap | None = None, name: str | None = None) -> Manifest:
        """An object of this server."""
        metadata = Metadata(
            name=name or self._name,
            labels=self.selected,
            annotations={**self._contract, **(annotations or {})},
        )
        return Manifest(metadata=metadata, spec=spec)


def _deployment(settings: DeploymentSettings, made: _Maker) -> DeploymentSpec:
    return DeploymentSpec(
        replicas=None if settings.scales else settings.replicas_min,
        revision_history_limit=5,
        progress_deadline_seconds=_BUILD_SECONDS,
        strategy=_strategy(settings),
        selector=LabelSelector(match_labels=made.selected),
        template=PodTemplate(
            metadata=Metadata(labels=made.selected, annotations=made.pod_annotations),
            spec=pod_spec(settings, made.selected, server="server"),
        ),
    )


def _strategy(settings: DeploymentSettings) -> Strategy:
    """The old pod first where the new one needs what it has: a claim, or a GPU that may be the last."""
    if settings.engine_store == "claim":
        return Strategy(type="Recreate")
    missing = 1 if settings.gpus else 0
    return Strategy(
        type="RollingUpdate", rolling_update=RollingUpdate(max_unavailable=missing, max_surge=1 - missing)
    )


def _service(settings: DeploymentSettings, selected: StringMap) -> ServiceSpec:
    return ServiceSpec(
        type="ClusterIP",
        selector=selected,
        ports=(
            ServicePort(name="http", port=settings.http_port, target_port="http", app_protocol="http"),
            ServicePort(
                name="grpc", port=settings.grpc_port, target_port="grpc", app_protocol="kubernetes.io/h2c"
            ),
        ),
    )


def _autoscaler(settings: DeploymentSettings) -> AutoscalerSpec:
    target = MetricTarget(type="Utilization", average_utilization=settings.cpu_percent)
    return AutoscalerSpec(
        scale_target_ref=ScaleTarget(
            api_version=DeploymentSpec.API_VERSION, kind=DeploymentSpec.KIND, name=settings.name
        ),
        min_replicas=settings.replicas_min,
        max_replicas=settings.replicas_max,
        metrics=(Metric(type="Resource", resource=ResourceMetric(name="cpu", target=target)),),
    )


def _disruption_budget(selected: StringMap) -> DisruptionBudgetSpec:
    """One pod at a time: a budget that says how many must stay would keep the last one's node for ever."""
    return DisruptionBudgetSpec(
        max_unavailable=1,
        unhealthy_pod_eviction_policy="AlwaysAllow",
        selector=LabelSelector(match_labels=selected),
    )


def _inference_service(settings: DeploymentSettings, made: _Maker) -> InferenceServiceSpec:
    pod = pod_spec(settings, made.selected, server=_KSERVE_CONTAINER)
    predictor = Predictor(
        **{field.name: getattr(pod, field.name) for field in fields(pod)},
        min_replicas=settings.replicas_min,
        max_replicas=settings.replicas_max,
        scale_metric="cpu",
        scale_target=settings.cpu_percent,
        deployment_strategy=_strategy(settings),
        labels=made.selected,
        annotations=made.pod_annotations,
    )
    return InferenceServiceSpec(predictor=predictor)


def _claim(settings: DeploymentSettings, made: _Maker) -> dict[str, Manifest]:
    if settings.engine_store != "claim":
        return {}
    claim = ClaimSpec(
        access_modes=("ReadWriteOncePod",),
        storage_class_name=settings.storage_class,
        resources=ClaimResources(requests={"storage": f"{settings.engine_store_gib}Gi"}),
    )
    return {"engine-store.yaml": made.manifest(claim, name=claim_name(settings))}
