"""Kubernetes manifests: every object is valid for its API and consistent with the others."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_validate.utils import all_versions

from ccr_deploy.packaging.kubernetes.folder import manifest_texts
from ccr_deploy.packaging.kubernetes.pod import DRAIN_SECONDS, PRE_STOP_SECONDS
from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings
from ccr_deploy.targets.schema import load_target, target_files
from deploy.example import CONTRACT_ID, EXAMPLES, FOLDER
from tests.support import kserve_types
from tests.support.cli_runner import run
from tests.support.kserve_types import typed

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = "1.30.0"
VERSIONS = list(dict.fromkeys(all_versions()[all_versions().index(OLDEST) :]))
ROOT = Path(__file__).parents[4]
TARGETS = sorted(name for name in target_files() if load_target(name).backend != "pytorch")
LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?", fullmatch=True)
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module", autouse=True)
def kserve_process() -> Iterator[None]:
    yield
    kserve_types.end()


@st.composite
def any_settings(draw: st.DrawFn) -> DeploymentSettings:
    """Everything that is allowed."""
    store = draw(st.sampled_from(["pod", "claim"]))
    replicas = sorted(draw(st.tuples(*[st.integers(1, 1000)] * 2))) if store == "pod" else (1, 1)
    http, grpc = draw(st.lists(st.integers(1024, 65535), min_size=2, max_size=2, unique=True))
    shards = draw(st.integers(0, 1000))
    registry, tag = draw(LABEL), draw(st.from_regex(r":v[0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True))
    return DeploymentSettings(
        name=draw(LABEL),
        image=f"{registry}.example.com:5000/ccr/deploy{draw(st.sampled_from([tag, '@' + DIGEST]))}",
        target=draw(st.sampled_from(TARGETS)),
        bundle=draw(st.from_regex(r"/b[a-z0-9_.-]{0,20}(/[a-z0-9 ü:#'\"-]{1,20})?", fullmatch=True)),
        replicas_min=replicas[0],
        replicas_max=replicas[1],
        cpu_percent=draw(st.integers(1, 100)),
        cores=draw(st.integers(1, 1024)),
        memory_mib=draw(st.integers(256, 1 << 24)),
        engine_store=store,
        engine_store_gib=draw(st.integers(1, 1 << 14)),
        storage_class=draw(st.none() | LABEL) if store == "claim" or shards else None,
        node_labels=draw(st.dictionaries(LABEL.map("example.com/{}".format), LABEL | st.just("true"))),
        http_port=http,
        grpc_port=grpc,
        verify_shards=shards,
    )


def manifests(of: DeploymentSettings) -> dict[str, dict[str, Any]]:
    """The objects in the YAML files, by file name."""
    return {name: yaml.safe_load(text) for name, text in manifest_texts(of, CONTRACT_ID).items()}


def pods(of: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The Deployment's pod, and the pod that KServe creates for the InferenceService."""
    predictor = of["kserve/inference-service.yaml"]["spec"]["predictor"]
    extensions = {
        "minReplicas",
        "maxReplicas",
        "scaleMetric",
        "scaleTarget",
        "deploymentStrategy",
        "labels",
        "annotations",
    }
    template = of["deployment/deployment.yaml"]["spec"]["template"]
    return [
        {"apiVersion": "v1", "kind": "Pod", **template},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"labels": predictor["labels"], "annotations": predictor["annotations"]},
            "spec": {name: value for name, value in predictor.items() if name not in extensions},
        },
    ]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


def check_against_the_apis(made: dict[str, dict[str, Any]], version: str) -> None:
    for manifest in made.values():
        if manifest["kind"] == "InferenceService":
            assert typed(manifest, "V1beta1InferenceService") == "V1beta1InferenceService"
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    for pod in pods(made):
        kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_supported_kubernetes_and_kserve_read_the_examples(example: str, version: str) -> None:
    check_against_the_apis(manifests(EXAMPLES[example]), version)


@given(any_settings())
@settings(max_examples=15, deadline=None)
def test_all_allowed_settings_make_valid_manifests(made_from: DeploymentSettings) -> None:
    check_against_the_apis(manifests(made_from), VERSIONS[-1])


@given(any_settings())
@settings(max_examples=25, deadline=None)
def test_yaml_reads_back_as_written(made_from: DeploymentSettings) -> None:
    made = manifests(made_from)
    for pod in pods(made):
        builder, server = containers(pod)
        common = [made_from.bundle, "--target", made_from.target]
        assert builder["args"][:4] == ["build-engine", *common]
        assert server["args"][:4] == ["serve", *common]
        ports = {port["name"]: port["containerPort"] for port in server["ports"]}
        assert ports == {"http": made_from.http_port, "grpc": made_from.grpc_port}
        for container in (builder, server):
            assert container["image"] == made_from.image
            limits = container["resources"]["limits"]
            assert container["resources"]["requests"] == limits
            assert limits["cpu"] == str(made_from.cores)
            assert limits["memory"] == f"{made_from.memory_mib}Mi"
            gpu = load_target(made_from.target).uses_gpu
            assert limits.get("nvidia.com/gpu") == ("1" if gpu else None)
        assert pod["spec"].get("nodeSelector", {}) == made_from.node_labels


@given(any_settings())
@settings(max_examples=25, deadline=None)
def test_objects_agree_with_each_other(made_from: DeploymentSettings) -> None:
    made = manifests(made_from)
    deployment, service = made["deployment/deployment.yaml"], made["deployment/service.yaml"]
    plain, kserve = pods(made)
    server = plain["spec"]["containers"][0]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= plain["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= plain["metadata"]["labels"].items()
    names = {port["name"] for port in server["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == names
    assert plain["metadata"]["annotations"]["prometheus.io/port"] == str(made_from.http_port)
    for folder, pod in (("deployment", plain), ("kserve", kserve)):
        budget = made[f"{folder}/disruption-budget.yaml"]["spec"]
        assert budget["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        store = made.get(f"{folder}/engine-store.yaml")
        assert claims == ({store["metadata"]["name"]} if store else set())
        assert bool(store) == (made_from.engine_store == "claim")
    autoscaler = made.get("deployment/autoscaler.yaml")
    assert (autoscaler is None) == ("replicas" in deployment["spec"])
    if autoscaler:
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": made_from.name}
        assert autoscaler["spec"]["scaleTargetRef"] == reference
        assert deployment["metadata"]["name"] == made_from.name


@given(any_settings())
@settings(max_examples=25, deadline=None)
def test_every_shard_of_a_verification_is_run_once_and_merged(made_from: DeploymentSettings) -> None:
    made = manifests(made_from)
    if not made_from.verify_shards:
        assert not any(name.startswith("verification") for name in made)
        return
    job, merge = made["verification/shards.yaml"], made["verification-merge/merge.yaml"]
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == made_from.verify_shards
    # The host name of a pod of an Indexed Job is its name and index: at most 63 characters.
    assert len(f"{job['metadata']['name']}-{made_from.verify_shards - 1}") <= 63
    (build,), (verify,) = (spec["template"]["spec"][name] for name in ("initContainers", "containers"))
    options = verify["args"]
    assert options[options.index("--shard") + 1] == f"$(JOB_COMPLETION_INDEX)/{made_from.verify_shards}"
    (join,) = merge["spec"]["template"]["spec"]["containers"]
    folder = options[options.index("--report") + 1]
    assert join["args"] == ["verify", made_from.bundle, "--merge", "--report", folder]
    engines = options[options.index("--engines") + 1]
    assert build["args"][build["args"].index("--engines") + 1] == engines
    mounts = {mount["mountPath"]: mount for mount in verify["volumeMounts"]}
    assert mounts[options[options.index("--images") + 1]]["readOnly"]
    claim = made["verification/results.yaml"]["metadata"]["name"]
    for container, pod in ((verify, spec), (join, merge["spec"])):
        volumes = {volume["name"]: volume for volume in pod["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        assert volumes["verification"]["persistentVolumeClaim"]["claimName"] == claim


def test_a_service_does_not_send_requests_to_kserves_pods() -> None:
    made = manifests(EXAMPLES["cpu"])
    _, kserve = pods(made)
    selector = made["deployment/service.yaml"]["spec"]["selector"]
    assert not selector.items() <= kserve["metadata"]["labels"].items()


def planted(content: Any) -> Iterator[Any]:
    """`content` with one unknown field more, in every mapping of the API's own."""
    if isinstance(content, list):
        for index, part in enumerate(content):
            for changed in planted(part):
                yield [*content[:index], changed, *content[index + 1 :]]
    if isinstance(content, dict):
        yield {**content, "unheardOf": 1}
        for name, part in content.items():
            if name not in {"labels", "annotations", "matchLabels", "nodeSelector", "requests", "limits"}:
                for changed in planted(part):
                    yield {**content, name: changed}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_field_unknown_to_an_api_is_found_at_any_depth(example: str) -> None:
    made = manifests(EXAMPLES[example])
    count = 0
    for changed in planted(made["kserve/inference-service.yaml"]):
        count += 1
        with pytest.raises(AssertionError, match="unknown"):
            typed(changed, "V1beta1InferenceService")
    assert count > 30
    for changed in planted(made["deployment/service.yaml"]):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(changed, VERSIONS[-1], strict=True)


def test_a_missing_or_wrong_field_of_an_inference_service_is_found() -> None:
    service = manifests(EXAMPLES["cpu"])["kserve/inference-service.yaml"]
    nameless = copy.deepcopy(service)
    del nameless["spec"]["predictor"]["containers"][0]["name"]
    with pytest.raises(ValueError, match="name"):
        typed(nameless, "V1beta1InferenceService")
    wordy = copy.deepcopy(service)
    wordy["spec"]["predictor"]["maxReplicas"] = "four"
    with pytest.raises(AssertionError, match="'four' is not of type int"):
        typed(wordy, "V1beta1InferenceService")


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_meet_the_restricted_pod_security_standard(example: str) -> None:
    for pod in pods(manifests(EXAMPLES[example])):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert all("hostPort" not in port for port in container.get("ports", ()))
        assert all({"emptyDir", "persistentVolumeClaim"} & set(volume) for volume in spec["volumes"])


@pytest.mark.parametrize("example", EXAMPLES)
def test_only_volumes_are_writable(example: str) -> None:
    for pod in pods(manifests(EXAMPLES[example])):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in containers(pod):
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounted.values()) == volumes
            arguments = container["args"]
            assert arguments[arguments.index("--engines") + 1] in mounted
            values = [variable["value"] for variable in container["env"]]
            assert {value for value in values if value.startswith("/")} <= set(mounted)


def test_probes_use_the_open_inference_protocol() -> None:
    for pod in pods(manifests(EXAMPLES["cpu"])):
        (server,) = pod["spec"]["containers"]
        probes = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        assert probes == {
            "startup": {"path": "/v2/health/ready", "port": "http"},
            "readiness": {"path": "/v2/health/ready", "port": "http"},
            "liveness": {"path": "/v2/health/live", "port": "http"},
        }


def test_a_server_has_time_to_finish_requests_in_flight() -> None:
    for pod in pods(manifests(EXAMPLES["cpu"])):
        (server,) = pod["spec"]["containers"]
        assert server["lifecycle"]["preStop"] == {"sleep": {"seconds": PRE_STOP_SECONDS}}
        assert pod["spec"]["terminationGracePeriodSeconds"] > PRE_STOP_SECONDS + DRAIN_SECONDS


@pytest.mark.parametrize(
    ("example", "strategy"),
    [
        ("cpu", {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}),
        ("gpu", {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}),
        ("gpu-with-claim", {"type": "Recreate"}),
    ],
)
def test_rollout_does_not_wait_for_resources_of_the_old_pod(example: str, strategy: dict[str, Any]) -> None:
    made = manifests(EXAMPLES[example])
    assert made["deployment/deployment.yaml"]["spec"]["strategy"] == strategy
    assert made["kserve/inference-service.yaml"]["spec"]["predictor"]["deploymentStrategy"] == strategy


def test_kserve_creates_a_deployment_and_no_knative_service() -> None:
    service = manifests(EXAMPLES["cpu"])["kserve/inference-service.yaml"]
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["ports"][0]["name"] == "http"  # the one behind KServe's Service


def test_the_init_containers_command_builds_the_engines(tiny_bundle, tmp_path) -> None:
    builder = pods(manifests(EXAMPLES["cpu"]))[0]["spec"]["initContainers"][0]
    assert builder["command"] == ["ccr-deploy"]
    here = {"/bundle": tiny_bundle.path, "/engines": tmp_path / "engines"}
    outcome = run(*(here.get(argument, argument) for argument in builder["args"]))
    assert (outcome.status, outcome.stderr) == (0, "")
    built = {path.name for path in (tmp_path / "engines").glob("*/*.onnx")}
    assert built == {"encoder.fp32.onnx", "classifier.fp32.onnx"}


def test_with_a_golden_file_pods_verify_their_engines_and_serve_no_others() -> None:
    of = replace(EXAMPLES["cpu"], golden="/model.golden")
    check_against_the_apis(manifests(of), VERSIONS[-1])
    for pod in pods(manifests(of)):
        builder, verifier, server = containers(pod)
        assert "--stage" not in builder["args"]  # a verification runs all engines of the bundle
        assert verifier["args"] == [
            *("verify", of.bundle, "--target", of.target),
            *("--golden", "/model.golden", "--engines", "/engines"),
        ]
        assert "--require-verified" in server["args"]
    assert all(
        "--require-verified" not in container["args"]
        for container in containers(pods(manifests(EXAMPLES["cpu"]))[0])
    )


def test_compose_runs_the_same_commands_as_safely() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for profile, target in (("cpu", "cpu"), ("gpu", "l4")):
        of = DeploymentSettings(name="ccr", image=f"ccr-deploy:1-{profile}", target=target)
        builder, server = containers(pods(manifests(of))[0])
        for name, container in ((f"build-{profile}", builder), (f"server-{profile}", server)):
            service = services[name]
            assert service["profiles"] == [profile]
            command = [
                word.replace(f"${{CCR_DEPLOY_TARGET:-{target}}}", target) for word in service["command"]
            ]
            assert ["ccr-deploy", *command] == container["command"] + container["args"]
            assert service["entrypoint"] == ["ccr-deploy"]
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert service["user"] == "10001:10001"
            assert ("deploy" in service) == (profile == "gpu")
            assert service["volumes"] == ["engines:/engines"]
        depends = services[f"server-{profile}"]["depends_on"]
        assert depends == {f"build-{profile}": {"condition": "service_completed_successfully"}}


def test_committed_examples_are_up_to_date() -> None:
    committed = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*")
        if path.is_file()
    }
    made = {
        f"{example}/{name}": text
        for example, of in EXAMPLES.items()
        for name, text in manifest_texts(of, CONTRACT_ID).items()
    }
    assert committed == made, "write them anew: python -m deploy.example"


def test_a_pods_grace_period_covers_the_servers_shutdown() -> None:
    """Read in a separate process, since the server imports KServe's SDK."""
    program = "from ccr_deploy.serving import server; print(server.GRACE_SECONDS)"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(asked.stdout) < DRAIN_SECONDS
