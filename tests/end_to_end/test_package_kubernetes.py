"""``ccr-deploy package --format kubernetes``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle

IMAGE = "registry.example.com/ccr-deploy:1.0"


def package(bundle: Bundle, output: Path, *options: object):
    return run("package", bundle.path, "--format", "kubernetes", "--output", output, *options)


def test_manifests_are_written_and_listed(tiny_bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "manifests"
    common = ("--target", "cpu", "--image", IMAGE)
    outcome = package(tiny_bundle, output, *common, "--name", "cameras", "--replicas", 1, 3)
    assert (outcome.status, outcome.stderr) == (0, "")
    written = {str(path) for path in output.rglob("*.yaml")}
    assert set(outcome.stdout.splitlines()[1:]) == written
    deployment = yaml.safe_load((output / "deployment" / "deployment.yaml").read_text())
    assert deployment["metadata"]["name"] == "cameras"
    init, server = (
        deployment["spec"]["template"]["spec"][name][0] for name in ("initContainers", "containers")
    )
    assert (init["image"], init["args"][:1], server["args"][:1]) == (IMAGE, ["build-engine"], ["serve"])
    scaler = yaml.safe_load((output / "deployment" / "autoscaler.yaml").read_text())
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 3)
    again = package(tiny_bundle, output, *common, "--json")
    assert set(json.loads(again.stdout)) == written


def test_a_gpu_is_requested_on_nodes_that_have_one(calibrated_demo, tmp_path: Path) -> None:
    label = "nvidia.com/gpu.product=NVIDIA-L4"
    outcome = package(
        calibrated_demo.bundle, tmp_path / "gpu", "--target", "l4", "--image", IMAGE, "--node-label", label
    )
    assert outcome.status == 0, outcome.stderr
    pod = yaml.safe_load((tmp_path / "gpu" / "deployment" / "deployment.yaml").read_text())["spec"][
        "template"
    ]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] in {1, "1"}
    assert "NVIDIA-L4" in json.dumps(pod["spec"])


def test_the_job_of_a_verification_is_written_on_request(tiny_bundle: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "manifests"
    common = ("--target", "cpu", "--image", IMAGE)
    assert package(tiny_bundle, output, *common, "--verify-shards", 4).status == 0
    job = yaml.safe_load((output / "verification" / "shards.yaml").read_text())
    assert (job["kind"], job["spec"]["completions"]) == ("Job", 4)
    assert package(tiny_bundle, output, *common).status == 0
    assert not (output / "verification").exists()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ((), 2, "needs --image NAME:TAG"),
        (("--image", "ccr-deploy"), 2, "name a tag other than latest"),
        (("--image", IMAGE, "--name", "No_Label"), 2, "not a DNS label"),
        (("--image", IMAGE, "--replicas", "3", "1"), 2, "replicas_max 1: must be 3 to 1000"),
        (("--image", IMAGE, "--node-label", "gpu"), 2, "expected KEY=VALUE"),
        (("--image", IMAGE, "--require-verified"), 2, "pass both --require-verified and --golden PATH"),
        (("--image", IMAGE, "--golden", "/model.golden"), 2, "pass both --require-verified and --golden"),
        (("--image", IMAGE, "--require-verified", "--golden", "a"), 2, "not an absolute path in the image"),
        (("--image", IMAGE, "--require-verified", "--golden", "/engines/a"), 2, "hidden by the volume"),
    ],
)
def test_invalid_options_are_refused_and_write_nothing(
    tiny_bundle: Bundle, tmp_path: Path, options: tuple[str, ...], status: int, message: str
) -> None:
    outcome = package(tiny_bundle, tmp_path / "out", "--target", "cpu", *options)
    assert outcome.status == status
    assert message in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_kubernetes_options_are_refused_for_triton(tiny_bundle: Bundle, tmp_path: Path) -> None:
    common = ("--format", "triton", "--output", tmp_path / "out")
    outcome = run("package", tiny_bundle.path, *common, "--image", IMAGE)
    assert outcome.status == 2
    assert "--image needs --format kubernetes" in outcome.stderr
