"""Write a bundle as a Triton model repository."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ccr_deploy import CREATED_BY
from ccr_deploy.codec.payload import PayloadHeader
from ccr_deploy.core.atomic import writing
from ccr_deploy.core.records import first_difference, to_json
from ccr_deploy.core.versions import version_numbers
from ccr_deploy.errors import RepositoryError, WrongUsageError
from ccr_deploy.packaging.triton import repository
from ccr_deploy.packaging.triton.models import LABELS_FILE, PAYLOAD, repository_models
from ccr_deploy.packaging.triton.payload_step import CONTRACT_FILE
from ccr_deploy.packaging.triton.pbtxt import to_pbtxt
from ccr_deploy.packaging.triton.served_stage import served_stages
from ccr_deploy.targets.schema import load_target

if TYPE_CHECKING:
    from ccr_deploy.bundle.manifest import Manifest
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore
    from ccr_deploy.packaging.triton.pbtxt import Message
    from ccr_deploy.packaging.triton.served_stage import ServedStage

_STEP_MODULES = ("__init__.py", "errors.py", "codec/__init__.py", "codec/payload.py")
"""The modules of this package that the payload step imports; they need only NumPy."""
_KEEP = ".keep"
"""A file that keeps an ensemble's empty version folder: some copy tools drop empty folders."""


@dataclass(frozen=True)
class PackagedRepository:
    """A written repository: its newest version, its interface and the names of its models."""

    path: Path
    version: repository.VersionRecord
    interface: repository.Interface
    models: tuple[str, ...]


def package_triton(
    bundle: Bundle, target_name: str, store: EngineStore, output: Path, *, require_verified: bool = False
) -> PackagedRepository:
    """Write a new repository, or add a version to an existing one.

    Args:
        bundle: the bundle to package.
        target_name: the target whose graphs or engines Triton runs.
        store: the engine store with the target's engines.
        output: the repository's folder.
        require_verified: whether to refuse plans that have not passed `ccr-deploy verify`.

    Raises:
        TargetError: if the target does not exist.
        WrongUsageError: if Triton does not support the target, its engines are not built, or `output` has
            other files, or a repository with other shapes or another backend.
        BundleError: if a graph is damaged.
        EngineError: if a plan is damaged, or not verified although this is required.
        RepositoryError: if the repository is damaged or cannot be written.
    """
    target = load_target(target_name)
    encoder, classifier = served_stages(bundle, target_name, target, store, require_verified=require_verified)
    output = output.resolve()
    with writing(output, RepositoryError), repository.staging_folder(output) as staging:
        found = repository.read_repository(output)
        interface = _interface(bundle.manifest, encoder)
        # All versions of a model must have the same backend and shapes.
        if found and (difference := first_difference(found.interface, interface)):
            field, value, required = difference
            raise WrongUsageError(
                f"{output}: {field} of this repository is {value}, the bundle's is {required}: "
                "choose another folder"
            )
        number = repository.next_version(output, found)
        version = repository.VersionRecord(
            version=number,
            created_by=CREATED_BY,
            contract_id=bundle.manifest.contract_id,
            weights_sha256=bundle.manifest.weights.sha256,
            target=target_name,
            precisions={stage.stage: stage.precision for stage in (encoder, classifier)},
            library_version=encoder.library_version,
            compute_capabilities=tuple(sorted(encoder.capabilities, key=version_numbers)),
        )
        versions = (*found.versions, version) if found else (version,)
        record = repository.RepositoryRecord(repository.SCHEMA_VERSION, interface, versions)
        models = repository_models(bundle.manifest, encoder, classifier, number)
        staged = staging / "repository"
        for model in models:
            _write_model(staged / model["name"], model, number, bundle.manifest)
        for stage in (encoder, classifier):
            for name, source in stage.files.items():
                shutil.copyfile(source, staged / stage.stage / str(number) / name)
        _write_payload_step(staged / PAYLOAD / str(number), bundle.manifest)
        _write(staged / repository.RECORD, to_json(record) + "\n")
        names = tuple(model["name"] for model in models)
        repository.publish(staged, output, number, names)
    return PackagedRepository(output, version, interface, names)


def _interface(manifest: Manifest, stage: ServedStage) -> repository.Interface:
    contract = manifest.contract
    return repository.Interface(
        backend=stage.backend,
        image_height=contract.image_height,
        image_width=contract.image_width,
        code_bytes=contract.code_bytes,
        classes=manifest.model.classifier.classes,
    )


def _write_model(folder: Path, model: Message, version: int, manifest: Manifest) -> None:
    (folder / str(version)).mkdir(parents=True)
    _write(folder / "config.pbtxt", to_pbtxt(model))
    if any("label_filename" in output for output in model["output"]):
        names = map(manifest.class_name, range(manifest.model.classifier.classes))
        _write(folder / LABELS_FILE, "".join(f"{' '.join(name.split())}\n" for name in names))
    if "ensemble_scheduling" in model:
        _write(folder / str(version) / _KEEP, "")


def _write_payload_step(folder: Path, manifest: Manifest) -> None:
    package = Path(str(resources.files("ccr_deploy")))
    for module in _STEP_MODULES:
        copy = folder / package.name / module
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / module, copy)
    shutil.copyfile(package / "packaging" / "triton" / "payload_step.py", folder / "model.py")
    header = {field.name: getattr(manifest.contract, field.name) for field in fields(PayloadHeader)}
    _write(folder / CONTRACT_FILE, to_json(header) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
