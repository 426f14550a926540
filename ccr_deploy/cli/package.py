"""``ccr-deploy package``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from ccr_deploy.cli.common import (
    bundle_argument,
    echo_json,
    engines_option,
    opened,
    output_options,
    path_option,
    print_lines,
    require_verified_option,
    target_option,
)
from ccr_deploy.core.records import to_builtins

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ccr_deploy.packaging.triton.package import PackagedRepository


@click.command(short_help="Write a Triton model repository or Kubernetes manifests.")
@bundle_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(["triton", "kubernetes"]),
    required=True,
    help="Output format.",
)
@path_option(
    "--output", "DIR", "Output folder; an existing Triton repository gets a new version.", required=True
)
@target_option
@engines_option
@click.option(
    "--image", metavar="NAME:TAG", help="kubernetes: container image with ccr-deploy and the bundle."
)
@click.option("--name", metavar="NAME", help="kubernetes: name of the resources.  [default: ccr]")
@click.option(
    "--replicas",
    type=(int, int),
    metavar="MIN MAX",
    help="kubernetes: bounds of the autoscaler.  [default: 2 4]",
)
@click.option(
    "--node-label",
    "node_labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="kubernetes: label of the nodes to schedule on; repeatable.",
)
@require_verified_option
@click.option(
    "--golden", metavar="PATH", help="kubernetes: golden file in the image to verify the engines with."
)
@click.option(
    "--verify-shards",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="kubernetes: add a Job of N pods that verify the engines on the images in the claim NAME-images.",
)
@output_options
def package(
    bundle: Path,
    kind: Literal["triton", "kubernetes"],
    output: Path,
    target: str | None,
    engines: Path | None,
    image: str | None,
    name: str | None,
    replicas: tuple[int, int] | None,
    node_labels: tuple[str, ...],
    require_verified: bool,
    golden: str | None,
    verify_shards: int | None,
    as_json: bool,
) -> None:
    """Write a Triton model repository or Kubernetes manifests for a bundle.

    triton: for an ONNX Runtime target, the repository contains the bundle's graphs; for a TensorRT target,
    the plans of the engine store, one for each compute capability that they were built on. The precision
    is the one that was built last for the bundle and target.

    kubernetes: the manifests are a Deployment and a KServe InferenceService; apply one of them. Its pods
    build the engines of the bundle in the image, then serve them.

    BUNDLE defaults to $CCR_DEPLOY_BUNDLE, then ./bundle.

    \b
    Examples:
      ccr-deploy package bundle --format triton --output repository
      ccr-deploy package bundle --format kubernetes --output k8s --target l4 --image ccr-deploy:1.0
    """
    from ccr_deploy.packaging.kubernetes.folder import write_manifests
    from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings
    from ccr_deploy.packaging.triton.package import package_triton

    only_kubernetes = {
        "--image": image,
        "--name": name,
        "--replicas": replicas,
        "--node-label": node_labels or None,
        "--golden": golden,
        "--verify-shards": verify_shards,
    }
    given = [option for option, value in only_kubernetes.items() if value is not None]
    if kind == "triton" and given:
        raise click.UsageError(f"{given[0]} needs --format kubernetes")
    if kind == "kubernetes" and require_verified != bool(golden):
        raise click.UsageError(
            "--format kubernetes: pods verify the engines that they build: pass both --require-verified and "
            "--golden PATH, a golden file in the image"
        )
    read, chosen, store = opened(bundle, target, engines, as_json=as_json)
    if kind == "triton":
        packaged = package_triton(read, chosen, store, output, require_verified=require_verified)
        content, lines = _as_json(packaged), _lines(packaged)
    elif image is None:
        raise click.UsageError(
            "--format kubernetes needs --image NAME:TAG, a container image with the bundle"
        )
    else:
        least, most = replicas or (2, 4)
        settings = DeploymentSettings(
            name=name or "ccr",
            image=image,
            target=chosen,
            replicas_min=least,
            replicas_max=most,
            node_labels=_labels(node_labels),
            golden=golden,
            verify_shards=verify_shards or 0,
        )
        lines = [str(path) for path in write_manifests(read, output, settings)]
        content = lines
    if as_json:
        echo_json(content)
    else:
        print_lines(*lines)


def _labels(options: Sequence[str]) -> dict[str, str]:
    labels = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise click.UsageError(f"--node-label {option}: expected KEY=VALUE")
        labels[key] = value
    return labels


def _as_json(packaged: PackagedRepository) -> object:
    return {
        "path": str(packaged.path),
        "models": packaged.models,
        **to_builtins(packaged.interface),
        **to_builtins(packaged.version),
    }


def _lines(packaged: PackagedRepository) -> list[str]:
    version = packaged.version
    engines = ", ".join(f"{stage} {precision}" for stage, precision in version.precisions.items())
    lines = [
        f"{packaged.path}: version {version.version} of {', '.join(packaged.models)}",
        f"engines: {engines}, for {packaged.interface.backend}; contract {version.contract_id}",
    ]
    if version.library_version:
        devices = ", ".join(version.compute_capabilities) or "8.0 or later"
        lines.append(f"the server needs TensorRT {version.library_version}, compute capability {devices}")
    return lines
