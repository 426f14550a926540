"""Invalid settings of a deployment are refused in one line that names the setting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccr_deploy.errors import WrongUsageError
from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

RIGHT: dict[str, Any] = {"name": "ccr", "image": "ccr-deploy:1.0.0", "target": "cpu"}


def refusal(**wrong: Any) -> str:
    """The one line with which settings are refused."""
    with pytest.raises(WrongUsageError) as caught:
        DeploymentSettings(**{**RIGHT, **wrong})
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "name",
    ["", "1ccr", "-ccr", "ccr-", "CCR", "c_r", "c.r", "ccr ", "ccr\n", "ü", "a" * 54],
)
def test_name_that_is_not_a_dns_label_is_refused(name: str) -> None:
    assert refusal(name=name).startswith(f"name {name!r}: not a DNS label")


@given(st.text(max_size=70))
def test_accepted_names_are_valid_everywhere(name: str) -> None:
    """KServe's Service is called NAME-predictor, and such a name has 63 letters at most."""
    try:
        DeploymentSettings(**{**RIGHT, "name": name})
    except WrongUsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 -- either is right
        return
    assert len(f"{name}-predictor") <= 63
    assert name.isascii()
    assert name == name.lower()
    assert name.replace("-", "a").isalnum()


@pytest.mark.parametrize(
    "image",
    [
        "ccr-deploy:1",
        "registry.example.com/a/b/ccr_deploy:v1.2-gpu",
        "localhost:5000/ccr:1",
        "ccr@sha256:" + "0f" * 32,
        "ccr:1@sha256:" + "0f" * 32,
        "ccr:latest@sha256:" + "0f" * 32,
    ],
)
def test_pinned_image_is_accepted(image: str) -> None:
    assert DeploymentSettings(**{**RIGHT, "image": image}).image == image


@pytest.mark.parametrize("image", ["ccr-deploy", "ccr-deploy:latest", "localhost:5000/ccr"])
def test_an_image_without_a_fixed_version_is_refused(image: str) -> None:
    assert "name a tag other than latest" in refusal(image=image)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "CCR:1",
        "ccr:",
        "ccr :1",
        "ccr:1\n# x",
        "https://example.com/ccr:1",
        "ccr@sha256:0f",
        "a" * 256 + ":1",
    ],
)
def test_invalid_image_name_is_refused(image: str) -> None:
    assert refusal(image=image).startswith(f"image {image!r}: not a valid image name")


@pytest.mark.parametrize("target", ["nonsense", "l4.tom", ""])
def test_an_unknown_target_is_refused(target: str) -> None:
    assert refusal(target=target).startswith(f"unknown target {target!r}: ")


def test_a_target_file_is_refused() -> None:
    assert "target files are not in the image" in refusal(target="engines/l4.toml")


@pytest.mark.parametrize("target", ["pytorch", "pytorch-cuda"])
def test_the_reference_is_not_deployed(target: str) -> None:
    assert "needs PyTorch" in refusal(target=target)


@pytest.mark.parametrize("bundle", ["", "bundle", "./bundle", "/", "/a/../b", "/a/", "/a//b", "/a\nb"])
def test_a_bundle_without_an_absolute_path_is_refused(bundle: str) -> None:
    assert "not an absolute path" in refusal(bundle=bundle)


@pytest.mark.parametrize("bundle", ["/engines", "/engines/bundle", "/tmp", "/tmp/bundle"])  # noqa: S108
def test_a_bundle_that_a_volume_would_hide_is_refused(bundle: str) -> None:
    assert "hidden by the volume" in refusal(bundle=bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replicas_min", 0),
        ("replicas_min", -1),
        ("replicas_max", 1),  # below the two that there are at least
        ("replicas_max", 1001),
        ("cpu_percent", 0),
        ("cpu_percent", 101),
        ("cores", 0),
        ("memory_mib", 0),
        ("engine_store_gib", 0),
        ("http_port", 80),
        ("http_port", 65536),
        ("grpc_port", 0),
    ],
)
def test_a_number_out_of_its_range_is_refused(field: str, value: int) -> None:
    assert refusal(**{field: value}).startswith(f"{field} {value}: must be ")


def test_two_servers_on_one_port_are_refused() -> None:
    assert "already used by http_port" in refusal(grpc_port=8080)


def test_a_claim_for_many_replicas_is_refused() -> None:
    assert "only one replica can use" in refusal(engine_store="claim")


def test_an_unknown_kind_of_store_is_refused() -> None:
    assert "must be pod or claim" in refusal(engine_store="s3")


def test_a_storage_class_without_a_claim_or_with_a_wrong_name_is_refused() -> None:
    assert "requires engine_store claim or verify_shards" in refusal(storage_class="fast")
    claim = {"engine_store": "claim", "replicas_min": 1, "replicas_max": 1}
    assert "not a valid name of a storage class" in refusal(storage_class="Fast!", **claim)


@pytest.mark.parametrize("label", [("", "a"), ("a/b/c", "d"), ("a", "b c"), ("a", "b" * 64), ("-a", "b")])
def test_invalid_node_label_is_refused(label: tuple[str, str]) -> None:
    assert "not a valid Kubernetes label" in refusal(node_labels=dict([label]))


@pytest.mark.parametrize(
    ("target", "gpus"), [("cpu", 0), ("cpu-openvino", 0), ("cuda", 1), ("l4", 1), ("rtx", 1)]
)
def test_replica_takes_a_gpu_if_its_target_uses_one(target: str, gpus: int) -> None:
    assert DeploymentSettings(**{**RIGHT, "target": target}).gpus == gpus
