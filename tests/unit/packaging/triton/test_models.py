"""The configurations, parsed with the classes of Triton's client."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from ccr_deploy.engines.store import EngineStore
from ccr_deploy.packaging.triton.models import repository_models
from ccr_deploy.packaging.triton.pbtxt import to_pbtxt
from ccr_deploy.packaging.triton.served_stage import served_stages
from ccr_deploy.targets.schema import load_target
from tests.support.plans import H200, L4, fleet_target, put_plans


def models(bundle, target, store, version=3):
    encoder, classifier = served_stages(bundle, str(target), load_target(str(target)), store)
    configs = repository_models(bundle.manifest, encoder, classifier, version)
    return {config["name"]: text_format.Parse(to_pbtxt(config), ModelConfig()) for config in configs}


@pytest.fixture
def onnx(tiny_bundle, tmp_path):
    return models(tiny_bundle, "cpu", EngineStore(tmp_path))


@pytest.fixture
def tensorrt(tiny_bundle, tmp_path):
    target, store = fleet_target(tmp_path), EngineStore(tmp_path / "plans")
    for device in (H200, L4):
        put_plans(tiny_bundle, target, store, device)
    return models(tiny_bundle, target, store)


def interface(tensors):
    return [(tensor.name, DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in tensors]


def test_models_come_after_those_that_they_are_made_of(onnx):
    assert list(onnx) == ["encoder", "classifier", "payload", "image_to_label", "payload_to_label"]


def test_the_interface_is_the_bundles(onnx):
    image, code = ("image", "TYPE_UINT8", [32, 48, 3]), ("code", "TYPE_UINT8", [12])
    payload, logits = ("payload", "TYPE_STRING", [1]), ("logits", "TYPE_FP32", [5])
    expected = {
        "encoder": (image, code),
        "classifier": (code, logits),
        "payload": (payload, code),
        "image_to_label": (image, logits),
        "payload_to_label": (payload, logits),
    }
    found = {name: (interface(model.input), interface(model.output)) for name, model in onnx.items()}
    assert found == {name: ([source], [result]) for name, (source, result) in expected.items()}


def test_onnx_runtime_runs_the_graph_on_the_cpu(onnx):
    for name in ("encoder", "classifier"):
        model = onnx[name]
        assert (model.platform, model.backend) == ("onnxruntime_onnx", "onnxruntime")
        assert model.default_model_filename == "model.onnx"
        assert [(group.count, group.kind) for group in model.instance_group] == [
            (1, ModelInstanceGroup.KIND_CPU)
        ]


def test_tensorrt_chooses_the_plan_by_compute_capability(tensorrt):
    for name in ("encoder", "classifier"):
        model = tensorrt[name]
        assert (model.platform, model.backend) == ("tensorrt_plan", "tensorrt")
        assert dict(model.cc_model_filenames) == {"8.9": "model.cc-8.9.plan", "9.0": "model.cc-9.0.plan"}
        assert model.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
        assert not model.parameters


def test_batches_are_those_that_the_engines_were_built_for(tensorrt):
    found = {name: model.max_batch_size for name, model in tensorrt.items()}
    assert found == {
        "encoder": 16, "classifier": 32, "payload": 32, "image_to_label": 16, "payload_to_label": 32
    }  # fmt: skip


def test_every_step_batches_and_refuses_what_would_wait_too_long(onnx):
    for name in ("encoder", "classifier", "payload"):
        batching = onnx[name].dynamic_batching
        assert batching.default_queue_policy.max_queue_size == 8 * onnx[name].max_batch_size
        assert batching.max_queue_delay_microseconds == (0 if name == "payload" else 1000)


def test_engines_are_warm_for_one_image_and_for_the_largest_batch(onnx):
    (source,) = onnx["encoder"].input
    warmups = onnx["encoder"].model_warmup
    assert [warmup.batch_size for warmup in warmups] == [1, 8]
    for warmup in warmups:
        zeros = warmup.inputs["image"]
        assert (zeros.zero_data, list(zeros.dims), zeros.data_type) == (True, [32, 48, 3], source.data_type)


def test_an_ensemble_names_its_steps_version_and_they_serve_the_one_before(onnx):
    for name, first in (("image_to_label", "encoder"), ("payload_to_label", "payload")):
        model = onnx[name]
        steps = model.ensemble_scheduling.step
        assert model.platform == "ensemble"
        assert [(step.model_name, step.model_version) for step in steps] == [(first, 3), ("classifier", 3)]
        assert model.version_policy.latest.num_versions == 1
        for step in steps:
            assert onnx[step.model_name].version_policy.latest.num_versions == 2


def test_an_ensembles_tensors_are_connected(onnx):
    for name in ("image_to_label", "payload_to_label"):
        model = onnx[name]
        known = {tensor.name for tensor in model.input}
        for step in model.ensemble_scheduling.step:
            inner = onnx[step.model_name]
            assert set(step.input_map) == {tensor.name for tensor in inner.input}
            assert set(step.input_map.values()) <= known
            assert set(step.output_map) == {tensor.name for tensor in inner.output}
            known |= set(step.output_map.values())
        assert {tensor.name for tensor in model.output} <= known


def test_a_targets_threads_are_the_sessions(tiny_bundle, tmp_path):
    path = tmp_path / "one.toml"
    path.write_text('description = "one"\nbackend = "onnxruntime"\n[options]\nthreads = 1\n')
    found = models(tiny_bundle, path, EngineStore(tmp_path / "engines"))
    assert found["encoder"].parameters["intra_op_thread_count"].string_value == "1"
