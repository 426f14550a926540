"""Write the folder of Kubernetes manifests as readable YAML, completely or not at all.

::

    folder/
      deployment/     deployment.yaml  service.yaml  autoscaler.yaml  disruption-budget.yaml
      kserve/         inference-service.yaml  disruption-budget.yaml

      verification/        shards.yaml  results.yaml      only if engines are to be verified
      verification-merge/  merge.yaml

Apply one of deployment/ and kserve/, not both. If the engine store is in a claim, both have an
engine-store.yaml.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ccr_deploy import __version__
from ccr_deploy.core.atomic import atomic_folder, writing
from ccr_deploy.core.printable import printable
from ccr_deploy.core.stages import CHAIN_STAGES
from ccr_deploy.core.untrusted import open_regular
from ccr_deploy.errors import CcrDeployError, MissingExtraError, WrongUsageError
from ccr_deploy.packaging.kubernetes.manifests import deployment_manifests, kserve_manifests
from ccr_deploy.packaging.kubernetes.verification import merge_manifests, verification_manifests
from ccr_deploy.targets.schema import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.packaging.kubernetes.pod import Fields
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

_MARK = "# Written by ccr-deploy "
_OUR_FILE = re.compile(
    r"(deployment/(deployment|service|autoscaler)|kserve/inference-service"
    r"|(deployment|kserve)/(disruption-budget|engine-store)"
    r"|verification/(shards|results)|verification-merge/merge)\.yaml"
)
_APPLY = {
    "verification": "Runs one pod for each shard of the images",
    "verification-merge": "Apply this after all shards: it joins their parts",
}
_WIDTH = 110


def write_manifests(bundle: Bundle, folder: Path, settings: DeploymentSettings) -> tuple[Path, ...]:
    """Write the Kubernetes manifests of a bundle's server; return their paths, in order.

    Args:
        bundle: the bundle that the image contains.
        folder: the folder to write to; older manifests in it are replaced.
        settings: the settings of the deployment.

    Raises:
        WrongUsageError: if the bundle lacks a graph that the target needs, or `folder` has other files.
        MissingExtraError: if PyYAML is not installed.
        CcrDeployError: if the folder cannot be written.
    """
    for stage in CHAIN_STAGES:
        resolved = resolve(settings.loaded_target, stage)
        bundle.graph(stage, resolved.graph_precision, resolved.schedule)
    return publish(folder, manifest_texts(settings, bundle.manifest.contract_id))


def manifest_texts(settings: DeploymentSettings, contract_id: str) -> dict[str, str]:
    """Return the YAML of every manifest, by the path of its file.

    Raises:
        MissingExtraError: if PyYAML is not installed.
    """
    folders = {"deployment": deployment_manifests, "kserve": kserve_manifests}
    if settings.verify_shards:
        folders |= {"verification": verification_manifests, "verification-merge": merge_manifests}
    return {
        f"{folder}/{name}": _header(settings, contract_id, folder) + _yaml(manifest)
        for folder, make in folders.items()
        for name, manifest in sorted(make(settings, contract_id).items())
    }


def publish(folder: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Write `texts` to a new folder, which replaces one with older manifests.

    Raises:
        WrongUsageError: if the folder has other files.
        CcrDeployError: if the folder cannot be written.
    """
    place = folder.resolve()  # keep a symbolic link: replace the folder that it points to
    with writing(folder, CcrDeployError):
        _check_ours(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(place) as new:
            for name, text in texts.items():
                path = new / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return tuple(folder / name for name in texts)


def _header(settings: DeploymentSettings, contract_id: str, folder: str) -> str:
    description = printable(settings.loaded_target.description)
    lines = (
        f"{_MARK}{__version__} (package --format kubernetes); writing again overwrites changes.",
        f"# {'Verifies' if folder in _APPLY else 'Serves'} the bundle {settings.bundle} of {settings.image}",
        f"# with the contract {contract_id}, for the target {settings.target}: {description}.",
        f"# {_APPLY.get(folder, 'Apply deployment/ or kserve/, not both')}: kubectl apply -f {folder}/",
    )
    return "\n".join(lines) + "\n"


def _yaml(manifest: Fields) -> str:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "kubernetes", "writing Kubernetes manifests") from error
    plain = json.loads(json.dumps(manifest))  # copies: PyYAML writes anchors for shared objects
    return yaml.safe_dump(plain, sort_keys=False, width=_WIDTH, allow_unicode=True)


def _check_ours(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WrongUsageError(f"{folder}: not a folder: choose another path")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not (path.is_dir() or (_OUR_FILE.fullmatch(name) and _begins_as_ours(path))):
            raise WrongUsageError(f"{folder}: {name} is not a manifest of ccr-deploy: choose another folder")


def _begins_as_ours(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(len(_MARK.encode())) == _MARK.encode()
