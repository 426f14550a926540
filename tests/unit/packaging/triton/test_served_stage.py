"""The graphs and plans that Triton serves, and those that are refused."""

import json
import shutil

import pytest

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.gpu import Gpu
from ccr_deploy.engines.sidecar import Verification, sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import BundleError, EngineError, WrongUsageError
from ccr_deploy.packaging.triton.served_stage import served_stages
from ccr_deploy.targets.schema import load_target, resolve
from tests.support.plans import H200, L4, fleet_target, put_plan, put_plans


@pytest.fixture
def plans(tmp_path):
    (tmp_path / "plans").mkdir()
    return EngineStore(tmp_path / "plans")


def served(bundle, target, store, *, require_verified=False):
    loaded = load_target(str(target))
    return served_stages(bundle, str(target), loaded, store, require_verified=require_verified)


def refusal(kind, bundle, target, store, **options):
    with pytest.raises(kind) as caught:
        served(bundle, target, store, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_onnx_runtime_gets_the_bundles_graphs(tiny_bundle, plans):
    encoder, classifier = served(tiny_bundle, "cpu", plans)
    graph = tiny_bundle.graph("encoder", "fp32", "iteration-major")
    assert encoder.files == {"model.onnx": tiny_bundle.path / graph.file.name}
    assert (encoder.backend, classifier.backend) == ("onnxruntime", "onnxruntime")
    assert encoder.capabilities == {}


def test_the_precision_is_that_of_the_last_build(tiny_bundle, plans):
    plans.choose(tiny_bundle, "cpu", {"classifier": resolve(load_target("cpu"), "classifier", None, "fp16")})
    message = refusal(WrongUsageError, tiny_bundle, "cpu", plans)
    assert "no fp16 classifier graph" in message


def test_onnx_runtime_gets_no_int8_graph(tiny_bundle, plans):
    """Triton's may be a version that computes it wrongly."""
    plans.choose(tiny_bundle, "cpu", {"encoder": resolve(load_target("cpu"), "encoder", None, "int8")})
    assert "build FP32 engines for this target" in refusal(WrongUsageError, tiny_bundle, "cpu", plans)


def test_unsupported_precision_is_refused(tiny_bundle, plans):
    plans.choose(tiny_bundle, "cpu", {"encoder": resolve(load_target("cpu"), "encoder", None, "bf16")})
    assert "BF16" in refusal(WrongUsageError, tiny_bundle, "cpu", plans)


def test_damaged_graph_is_refused(tiny_bundle, plans, tmp_path):
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    path = bundle.path / bundle.graph("classifier", "fp32", None).file.name
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert f"{path}: damaged" in refusal(BundleError, bundle, "cpu", plans)


@pytest.mark.parametrize("target", ["cpu-openvino", "pytorch", "cuda", "rtx"])
def test_unsupported_backend_is_refused(tiny_bundle, plans, target):
    assert f"target {target}: Triton does not support" in refusal(WrongUsageError, tiny_bundle, target, plans)


def test_plans_of_several_gpus_are_selected_by_compute_capability(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    for device in (H200, L4):
        put_plans(tiny_bundle, target, plans, device)
    encoder, classifier = served(tiny_bundle, target, plans)
    assert encoder.capabilities == {"8.9": "model.cc-8.9.plan", "9.0": "model.cc-9.0.plan"}
    assert encoder.capabilities == classifier.capabilities
    assert encoder.files["model.cc-8.9.plan"].read_text() == f"encoder by 10.13.3.9 for {L4}"
    assert json.loads(encoder.files["model.cc-9.0.plan.json"].read_text())["key"]["device"] == H200
    assert (encoder.max_batch, classifier.max_batch) == (16, 32)
    assert encoder.library_version == "10.13.3.9"


def test_a_gpu_is_named_as_the_store_names_it(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, str(Gpu("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.1")))
    assert served(tiny_bundle, target, plans)[0].capabilities == {"9.0": "model.cc-9.0.plan"}


def test_a_plan_for_a_whole_compute_capability(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path, "same-compute-capability")
    put_plans(tiny_bundle, target, plans, "compute capability 8.9")
    assert served(tiny_bundle, target, plans)[0].capabilities == {"8.9": "model.cc-8.9.plan"}


def test_a_plan_for_every_gpu_from_ampere_on_needs_no_name(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path, "ampere-plus")
    put_plans(tiny_bundle, target, plans, "compute capability 8.0 or later")
    encoder, _ = served(tiny_bundle, target, plans)
    assert encoder.capabilities == {}
    assert set(encoder.files) == {"model.plan", "model.plan.json"}


def test_the_newest_version_of_tensorrt_that_has_both_stages(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, L4, "10.9.0.34")
    put_plans(tiny_bundle, target, plans, L4, "10.13.3.9")
    put_plan(tiny_bundle, target, plans, "encoder", L4, version="10.16.1.11")
    encoder, classifier = served(tiny_bundle, target, plans)
    assert (encoder.library_version, classifier.library_version) == ("10.13.3.9", "10.13.3.9")


def test_plans_of_other_gpus_than_the_targets_are_left_out(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path, gpus='"NVIDIA H200*"')
    for device in (H200, L4):
        put_plans(tiny_bundle, target, plans, device)
    assert set(served(tiny_bundle, target, plans)[0].capabilities) == {"9.0"}


def test_missing_plans_are_named(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    message = refusal(WrongUsageError, tiny_bundle, target, plans)
    assert "no encoder and classifier plan" in message
    assert f"ccr-deploy build-engine {tiny_bundle.path} --target {target}" in message
    put_plan(tiny_bundle, target, plans, "encoder", L4)
    assert "no classifier plan" in refusal(WrongUsageError, tiny_bundle, target, plans)
    put_plan(tiny_bundle, target, plans, "classifier", L4, version="10.9.0.34")
    assert "no plans of both stages for one version" in refusal(WrongUsageError, tiny_bundle, target, plans)


def test_a_gpu_with_only_one_stage(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, H200)
    put_plan(tiny_bundle, target, plans, "encoder", L4)
    assert f"only one stage has a plan for {L4}" in refusal(WrongUsageError, tiny_bundle, target, plans)


def test_two_gpus_of_one_compute_capability(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    for device in (H200, "NVIDIA H100 PCIe (compute capability 9.0)"):
        put_plans(tiny_bundle, target, plans, device)
    assert "a second encoder plan for compute capability 9.0" in refusal(
        EngineError, tiny_bundle, target, plans
    )


@pytest.mark.parametrize("sizes", ["[1, 8]", "[8]"])
def test_plans_that_need_padding_are_refused(tiny_bundle, plans, tmp_path, sizes):
    target = fleet_target(tmp_path, batch=f"encoder = {sizes}\n")
    put_plans(tiny_bundle, target, plans, H200)
    message = refusal(WrongUsageError, tiny_bundle, target, plans)
    assert f"the encoder's plans take only batch {sizes[1:-1]}, and Triton does not pad" in message
    assert "dynamic = true" in message


def test_plans_of_batch_1_alone_need_no_padding(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path, batch="encoder = [1]\nclassifier = [1]\n")
    put_plans(tiny_bundle, target, plans, H200)
    assert {stage.max_batch for stage in served(tiny_bundle, target, plans)} == {1}


def test_changed_plan_is_refused(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, H200)
    (path,) = plans.path.glob("*/encoder.fp32.plan")
    path.write_bytes(path.read_bytes() + b"!")
    assert f"{path}: damaged or changed" in refusal(EngineError, tiny_bundle, target, plans)


def test_plan_without_sidecar_is_refused(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, H200)
    (path,) = plans.path.glob("*/encoder.fp32.plan")
    sidecar_path(path).unlink()
    assert f"{sidecar_path(path)}: no such file" in refusal(EngineError, tiny_bundle, target, plans)


@pytest.mark.parametrize(
    ("device", "message"),
    [(L4, "the sidecar does not match the engine's folder"), ("a CPU", "does not match the engine's folder")],
)
def test_changed_sidecar_is_refused(tiny_bundle, plans, tmp_path, device, message):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, H200)
    (path,) = plans.path.glob("*/encoder.fp32.plan")
    content = json.loads(sidecar_path(path).read_text())
    content["key"]["device"] = device
    sidecar_path(path).write_text(json.dumps(content))
    assert message in refusal(EngineError, tiny_bundle, target, plans)


def test_a_device_without_a_compute_capability(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    put_plans(tiny_bundle, target, plans, "some GPU")
    assert "has no compute capability" in refusal(EngineError, tiny_bundle, target, plans)


def test_plans_that_were_not_verified_are_refused_if_this_is_required(tiny_bundle, plans, tmp_path):
    target = fleet_target(tmp_path)
    engines = [put_plan(tiny_bundle, target, plans, stage, L4) for stage in ("encoder", "classifier")]
    manifest = tiny_bundle.manifest
    for engine in engines:
        message = refusal(EngineError, tiny_bundle, target, plans, require_verified=True)
        assert f"{engine.path}: was not verified: run ccr-deploy verify" in message
        assert f" --engines {plans.path} --{engine.sidecar.key.precision}, " in message
        record = Verification(
            engine_sha256=engine.sidecar.engine_sha256,
            verified_at="2026-01-02T03:04:05Z",
            passed=True,
            reference="golden",
            images="a golden file",
            images_sha256="0" * 64,
            image_count=64,
            changed_gates=(),
            contract_id=manifest.contract_id,
            weights_sha256=manifest.weights.sha256,
            created_by="test",
        )
        plans.add_verification(engine, record)
    assert len(served(tiny_bundle, target, plans, require_verified=True)) == len(engines)
