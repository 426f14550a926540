"""The Jobs that verify the engines on a large image set: one runs the shards, one joins their parts.

The shards share a volume: the first pod builds the engines there and the others use them, because parts of
different engines cannot be joined. A pod that is started again continues its part file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccr_deploy.packaging.kubernetes.pod import TEMPORARY_VOLUME, container, given, unprivileged_pod
from ccr_deploy.packaging.kubernetes.settings import IMAGES, VERIFICATION

if TYPE_CHECKING:
    from ccr_deploy.packaging.kubernetes.pod import Fields
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

_ENGINES = f"{VERIFICATION}/engines"
_REPORT = f"{VERIFICATION}/report"
_RETRIES = 3
_WRITABLE = {"name": "verification", "mountPath": VERIFICATION}


def verification_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return the Indexed Job that runs the shards, and the claim of its results, by file name."""
    shards = settings.verify_shards
    common = (settings.bundle, "--target", settings.target, "--engines", _ENGINES)
    # Kubernetes replaces the variable by the pod's index.
    shard = ("--images", IMAGES, "--report", _REPORT, "--shard", f"$(JOB_COMPLETION_INDEX)/{shards}")
    images = {"name": "images", "mountPath": IMAGES, "readOnly": True}
    build = container(
        settings, "build-engines", ("build-engine", *common, "--no-timing"), [_WRITABLE], gpus=settings.gpus
    )
    # One pod builds, the others wait for the lock and then find the engines.
    build["command"] = ["flock", f"{VERIFICATION}/build.lock", "ccr-deploy"]
    pod = {
        **unprivileged_pod(settings),
        "restartPolicy": "Never",
        "initContainers": [build],
        "containers": [
            container(
                settings, "verify", ("verify", *common, *shard), [_WRITABLE, images], gpus=settings.gpus
            )
        ],
        "volumes": [
            _volume(settings),
            {
                "name": "images",
                "persistentVolumeClaim": {"claimName": f"{settings.name}-images", "readOnly": True},
            },
            TEMPORARY_VOLUME,
        ],
    }
    indexed = {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": shards,
        "backoffLimitPerIndex": _RETRIES,
    }
    claim = {
        "accessModes": ["ReadWriteMany"],
        **given(storageClassName=settings.storage_class),
        "resources": {"requests": {"storage": f"{settings.engine_store_gib}Gi"}},
    }
    return {
        "shards.yaml": _object(settings, contract_id, "batch/v1 Job", "shard", _job(indexed, pod)),
        "results.yaml": _object(settings, contract_id, "v1 PersistentVolumeClaim", "verification", claim),
    }


def merge_manifests(settings: DeploymentSettings, contract_id: str) -> dict[str, Fields]:
    """Return the Job that joins the parts, by file name; it fails if a gate fails."""
    arguments = ("verify", settings.bundle, "--merge", "--report", _REPORT)
    pod = {
        **unprivileged_pod(settings),
        "restartPolicy": "Never",
        "containers": [container(settings, "merge", arguments, [_WRITABLE], gpus=0)],
        "volumes": [_volume(settings), TEMPORARY_VOLUME],
    }
    job = _job({"backoffLimit": 0}, pod)
    return {"merge.yaml": _object(settings, contract_id, "batch/v1 Job", "merge", job)}


def _job(fields: Fields, pod: Fields) -> Fields:
    return {**fields, "template": {"spec": pod}}


def _volume(settings: DeploymentSettings) -> Fields:
    claim = {"claimName": f"{settings.name}-verification"}
    return {"name": "verification", "persistentVolumeClaim": claim}


def _object(settings: DeploymentSettings, contract_id: str, api: str, suffix: str, spec: Fields) -> Fields:
    version, kind = api.split()
    metadata = {
        "name": f"{settings.name}-{suffix}",
        "labels": {
            "app.kubernetes.io/name": "ccr-deploy",
            "app.kubernetes.io/instance": settings.name,
            "app.kubernetes.io/component": "verification",
        },
        "annotations": {"ccr-deploy/contract-id": contract_id},
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
