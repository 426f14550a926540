"""The objects of a cluster that a server is made of.

They are Kubernetes' own as far as they are used here, field by field: `camelCase` there is `snake_case` here,
and None is a field that is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from ccr_deploy.packaging.kubernetes.pod_objects import LabelSelector, PodSpec, StringMap


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What an object is called."""

    name: str | None = None
    labels: StringMap
    annotations: StringMap | None = None


@dataclass(frozen=True, kw_only=True)
class PodTemplate:
    """What all pods of a Deployment are."""

    metadata: Metadata
    spec: PodSpec


@dataclass(frozen=True, kw_only=True)
class RollingUpdate:
    """How many pods may be missing, and how many too many, while they are replaced."""

    max_unavailable: int
    max_surge: int


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How pods are replaced by newer ones."""

    type: str
    rolling_update: RollingUpdate | None = None


@dataclass(frozen=True, kw_only=True)
class DeploymentSpec:
    """Pods that are replaced where they fail; without `replicas` something else says how many."""

    API_VERSION: ClassVar = "apps/v1"
    KIND: ClassVar = "Deployment"

    replicas: int | None
    revision_history_limit: int
    progress_deadline_seconds: int
    strategy: Strategy
    selector: LabelSelector
    template: PodTemplate


@dataclass(frozen=True, kw_only=True)
class ServicePort:
    """A port of a Service, and the pods' port behind it."""

    name: str
    port: int
    target_port: str
    app_protocol: str


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One address for all pods that are ready."""

    API_VERSION: ClassVar = "v1"
    KIND: ClassVar = "Service"

    type: str
    selector: StringMap
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, kw_only=True)
class ScaleTarget:
    """What is scaled."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class MetricTarget:
    """The mean over all pods to keep, in percent of what they request."""

    type: str
    average_utilization: int


@dataclass(frozen=True, kw_only=True)
class ResourceMetric:
    """A resource whose use is measured."""

    name: str
    target: MetricTarget


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What tells how many pods there should be."""

    type: str
    resource: ResourceMetric


@dataclass(frozen=True, kw_only=True)
class AutoscalerSpec:
    """More pods under load, fewer without."""

    API_VERSION: ClassVar = "autoscaling/v2"
    KIND: ClassVar = "HorizontalPodAutoscaler"

    scale_target_ref: ScaleTarget
    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, kw_only=True)
class DisruptionBudgetSpec:
    """How many pods may be missing while nodes are emptied."""

    API_VERSION: ClassVar = "policy/v1"
    KIND: ClassVar = "PodDisruptionBudget"

    max_unavailable: int
    unhealthy_pod_eviction_policy: str
    selector: LabelSelector


@dataclass(frozen=True, kw_only=True)
class ClaimResources:
    """How large a volume is asked for."""

    requests: StringMap


@dataclass(frozen=True, kw_only=True)
class ClaimSpec:
    """A volume that outlives pods."""

    API_VERSION: ClassVar = "v1"
    KIND: ClassVar = "PersistentVolumeClaim"

    access_modes: tuple[str, ...]
    storage_class_name: str | None
    resources: ClaimResources


@dataclass(frozen=True, kw_only=True)
class Predictor(PodSpec):
    """KServe's word for the pods that answer, and how many of them."""

    min_replicas: int
    max_replicas: int
    scale_metric: str
    scale_target: int
    deployment_strategy: Strategy
    labels: StringMap
    annotations: StringMap


@dataclass(frozen=True, kw_only=True)
class InferenceServiceSpec:
    """KServe's InferenceService, from which its controller makes all the rest."""

    API_VERSION: ClassVar = "serving.kserve.io/v1beta1"
    KIND: ClassVar = "InferenceService"

    predictor: Predictor


Spec = DeploymentSpec | ServiceSpec | AutoscalerSpec | DisruptionBudgetSpec | ClaimSpec | InferenceServiceSpec


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One object of a cluster."""

    metadata: Metadata
    spec: Spec

    def as_mapping(self) -> dict[str, Any]:
        """What the API reads."""
        return {"apiVersion": self.spec.API_VERSION, "kind": self.spec.KIND, **_plain(self)}


def _plain(value: object) -> Any:  # noqa: ANN401 -- whatever JSON has
    if is_dataclass(value):
        content = {_camel(field.name): getattr(value, field.name) for field in fields(value)}
        return {name: _plain(part) for name, part in content.items() if part is not None}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
