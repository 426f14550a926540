"""Targets are read from TOML files, and errors name the wrong field."""

import json
import os
from pathlib import Path

import pytest
from msgspec import structs

from ccr_deploy.backends.machine import Machine
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeOptions
from ccr_deploy.backends.openvino.cpu import OpenVinoOptions
from ccr_deploy.backends.options import Batch, BatchProfile
from ccr_deploy.backends.pytorch.options import PyTorchOptions
from ccr_deploy.backends.tensorrt.options import TensorRtOptions
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.errors import TargetError
from ccr_deploy.targets.resolved import ResolvedTarget
from ccr_deploy.targets.schema import (
    StageBatches,
    StagePrecisions,
    Target,
    load_target,
    resolve,
    target_files,
)

SHIPPED = Path(__file__).parents[3] / "engines"
GOOD = """
description = "mine"
backend = "onnxruntime"
schedule = "layer-major"

[precision]
encoder = "fp32"

[options]
threads = 3
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_file_in_engines_is_a_named_target():
    assert sorted(target_files()) == sorted(path.stem for path in SHIPPED.glob("*.toml"))


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_every_shipped_target_loads(name):
    assert load_target(name).description


def test_the_default_target_is_shipped():
    assert load_target("cpu").backend == "onnxruntime"


def test_the_reference_target_is_shipped():
    assert load_target("pytorch").backend == "pytorch"


def test_a_toml_file_is_read_field_by_field(tmp_path):
    assert load_target(write(tmp_path, GOOD)) == Target(
        description="mine",
        schedule="layer-major",
        precision=StagePrecisions(),
        options=OnnxRuntimeOptions(threads=3),
    )


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("threads = 3", "thread = 3", "options.thread"),
        ("threads = 3", 'threads = "many"', "options.threads"),
        ("threads = 3", "threads = 2.5", "options.threads"),
        ("threads = 3", "threads = -1", "options.threads"),
        ("threads = 3", "threads = 1025", "options.threads"),
        ('encoder = "fp32"', 'encoder = "fp7"', "precision.encoder"),
        ('encoder = "fp32"', 'coder = "fp32"', "precision.coder"),
        ('"onnxruntime"', '"onnx"', "backend"),
        ('"layer-major"', '"major"', "schedule"),
        ('"mine"', "7", "description"),
        ('description = "mine"\n', "", "description"),
        ("[options]", "[option]", "option"),
    ],
)
def test_a_wrong_field_is_refused_and_named(tmp_path, old, new, field):
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert f"{path}: field {field}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["description = ", "[precision", GOOD + "\n[options]\n", "\0"])
def test_bad_toml_is_refused_and_the_file_named(tmp_path, text):
    path = write(tmp_path, text)
    with pytest.raises(TargetError, match="cannot be read as TOML") as caught:
        load_target(path)
    assert path in str(caught.value)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b'description = "\xff"')
    with pytest.raises(TargetError, match="cannot be read as TOML"):
        load_target(str(path))


def test_a_folder_named_like_a_target_file_is_refused(tmp_path):
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(TargetError, match="cannot be read"):
        load_target(str(tmp_path / "mine.toml"))


def test_a_missing_file_is_refused_by_name(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(TargetError, match="no such file") as caught:
        load_target(str(path))
    assert str(path) in str(caught.value)


def test_an_unknown_name_is_refused_and_the_known_ones_listed():
    with pytest.raises(TargetError, match=r"unknown target 'jetsn': .*choose from .*cpu.*pytorch"):
        load_target("jetsn")


def test_the_digest_does_not_depend_on_the_description():
    first, second = (Target(description=text, options=OnnxRuntimeOptions()) for text in ("one", "two"))
    assert resolve(first, "encoder").digest == resolve(second, "encoder").digest


@pytest.mark.parametrize(
    "change",
    [{"options": OnnxRuntimeOptions(threads=2)}, {"schedule": "layer-major"}, {"options": OpenVinoOptions()}],
    ids=["options", "schedule", "backend"],
)
def test_the_digest_depends_on_what_the_engine_is_built_from(change):
    target = Target(description="", options=OnnxRuntimeOptions())
    changed = structs.replace(target, **change)
    assert resolve(target, "encoder").digest != resolve(changed, "encoder").digest


def test_a_default_that_is_written_out_does_not_change_the_digest(tmp_path):
    short = load_target(write(tmp_path, 'description = ""\nbackend = "onnxruntime"\n'))
    long = load_target("cpu")
    assert resolve(short, "encoder").digest == resolve(long, "encoder").digest


@pytest.mark.parametrize("stage", ["classifier", "baseline"])
def test_only_an_encoder_has_a_schedule(stage):
    target = Target(description="", schedule="layer-major", options=OnnxRuntimeOptions())
    assert resolve(target, stage, "plain").schedule is None


def test_the_encoder_of_the_reference_is_not_unrolled():
    assert resolve(Target(description="", options=PyTorchOptions()), "encoder", "plain").schedule is None


def test_a_given_schedule_replaces_the_target_s():
    target = Target(description="", schedule="layer-major", options=OnnxRuntimeOptions())
    assert resolve(target, "encoder", "plain").schedule == "plain"


def test_without_a_given_schedule_the_target_s_is_used():
    target = Target(description="", schedule="layer-major", options=OnnxRuntimeOptions())
    assert resolve(target, "encoder").schedule == "layer-major"


GPU = """
description = "my GPU"
backend = "tensorrt"

[precision]
encoder = "int8"
classifier = "fp16"

[machine]
gpus = ["NVIDIA L4", "NVIDIA L40*"]
from_version = "10.3"
below_version = "12"

[batch]
encoder = [1]
classifier = [1, 8, 32]

[options]
workspace_mib = 1024
tf32 = true
optimization_level = 5
version_compatible = true
hardware_compatibility = "ampere-plus"
timing_cache = false
"""
RTX = """
description = "some GPUs"
backend = "tensorrt-rtx"

[options]
compute_capabilities = ["8.6", "12.0"]
"""


def test_a_gpu_target_is_read_field_by_field(tmp_path):
    target = load_target(write(tmp_path, GPU))
    assert target == Target(
        description="my GPU",
        precision=StagePrecisions(encoder="int8", classifier="fp16"),
        machine=Machine(gpus=("NVIDIA L4", "NVIDIA L40*"), from_version="10.3", below_version="12"),
        batch=StageBatches(classifier=(1, 8, 32)),
        options=TensorRtOptions(
            workspace_mib=1024,
            tf32=True,
            optimization_level=5,
            version_compatible=True,
            hardware_compatibility="ampere-plus",
            timing_cache=False,
        ),
    )


@pytest.mark.parametrize(
    ("text", "old", "new", "field"),
    [
        (GPU, "tf32 = true", 'tf32 = "yes"', "options.tf32"),
        (GPU, "tf32 = true", "threads = 2", "options.threads"),
        (GPU, "workspace_mib = 1024", "workspace_mib = -1", "options.workspace_mib"),
        (GPU, "optimization_level = 5", "optimization_level = 6", "options.optimization_level"),
        (GPU, '"ampere-plus"', '"all"', "options.hardware_compatibility"),
        (GPU, "[1, 8, 32]", "[1, 32, 8]", "batch.classifier"),
        (GPU, "[1, 8, 32]", "[1, 8, 8]", "batch.classifier"),
        (GPU, "[1, 8, 32]", "[]", "batch.classifier"),
        (GPU, "[1, 8, 32]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]", "batch.classifier"),
        (GPU, "[1, 8, 32]", "[0, 8]", "batch.classifier.0"),
        (GPU, "[1, 8, 32]", "[1, 4097]", "batch.classifier.1"),
        (GPU, "[1, 8, 32]", "32", "batch.classifier"),
        (GPU, "classifier = [", "decoder = [", "batch.decoder"),
        (GPU, "[batch]", "[batch]\ndynamic = true", "batch.classifier"),
        (GPU, '"10.3"', '"ten"', "machine.from_version"),
        (GPU, '["NVIDIA L4", "NVIDIA L40*"]', "[]", "machine.gpus"),
        (RTX, '["8.6", "12.0"]', "[]", "options.compute_capabilities"),
        (RTX, '["8.6", "12.0"]', '["86"]', "options.compute_capabilities.0"),
        (RTX, '["8.6", "12.0"]', '["current", "8.6"]', "options"),
        (RTX, "[options]", "[options]\ntiming_cache = true", "options.timing_cache"),
        (GOOD, "[options]", "[batch]\n[options]", "batch"),
        (GOOD, "[options]", '[machine]\ngpus = ["x"]\n[options]', "machine"),
    ],
)
def test_a_wrong_field_of_a_gpu_target_is_refused_and_named(tmp_path, text, old, new, field):
    path = write(tmp_path, text.replace(old, new))
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert f"{path}: field {field}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_form_of_earlier_versions_is_refused_with_the_new_one(tmp_path):
    path = write(tmp_path, GPU.replace("[1, 8, 32]", "{ min = 1, opt = 8, max = 32 }"))
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert str(caught.value) == (
        f"{path}: field batch.classifier: expected a list of batch sizes, such as [1, 8, 32, 64], instead of "
        "{ min, opt, max }"
    )


def test_each_batch_size_has_a_profile_of_its_own():
    assert Batch((1, 8)).profiles == (BatchProfile(1, 1, 1), BatchProfile(8, 8, 8))


def test_a_dynamic_batch_has_one_profile_up_to_its_size():
    batch = Batch((64,), dynamic=True)
    assert batch.profiles == (BatchProfile(1, 64, 64),)
    assert (batch.smallest, batch.largest) == (1, 64)


@pytest.mark.parametrize("section", ["machine", "options"])
def test_a_gpu_target_needs_its_machine_or_compute_capabilities(tmp_path, section):
    """A TensorRT target names its GPUs, a TensorRT-RTX target its compute capabilities."""
    text = GPU if section == "machine" else RTX
    path = write(tmp_path, text.replace(f"[{section}]", f"# [{section}]").split(f"# [{section}]")[0])
    with pytest.raises(TargetError, match=rf"field {section}\S*: missing"):
        load_target(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[1, 8, 32]", "[1, 8, 16]"),
        ("[1, 8, 32]", "[1, 32]"),
        ("encoder = [1]\nclassifier = [1, 8, 32]", "classifier = [32]\ndynamic = true"),
        ("tf32 = true", "tf32 = false"),
        ("workspace_mib = 1024", "workspace_mib = 2048"),
        ("optimization_level = 5", "optimization_level = 3"),
        ("version_compatible = true", "version_compatible = false"),
        ('"ampere-plus"', '"none"'),
        ('classifier = "fp16"', 'classifier = "int8"'),
    ],
)
def test_a_field_that_changes_the_engine_changes_the_digest(tmp_path, old, new):
    before = resolve(load_target(write(tmp_path, GPU)), "classifier").digest
    assert resolve(load_target(write(tmp_path, GPU.replace(old, new))), "classifier").digest != before


def test_machine_and_description_do_not_change_the_digest(tmp_path):
    before = resolve(load_target(write(tmp_path, GPU)), "classifier").digest
    for old, new in (('"NVIDIA L4", ', ""), ('"10.3"', '"10.4"'), ("my GPU", "our GPU")):
        assert resolve(load_target(write(tmp_path, GPU.replace(old, new))), "classifier").digest == before


def test_a_resolved_target_round_trips_through_json(tmp_path):
    for text in (GOOD, GPU, RTX):
        resolved = resolve(load_target(write(tmp_path, text)), "encoder")
        assert convert(ResolvedTarget, json.loads(to_json(resolved))) == resolved


def test_only_a_version_compatible_engine_is_bound_to_a_major_version():
    assert TensorRtOptions(version_compatible=True).bound_version("10.13.3.9") == "10.x"
    assert TensorRtOptions().bound_version("10.13.3.9") == "10.13.3.9"
    assert OnnxRuntimeOptions().bound_version("1.24.4") == "1.24.4"


@pytest.mark.parametrize(
    ("name", "on_gpu"),
    [("cpu", False), ("cpu-openvino", False), ("pytorch", False), ("pytorch-cuda", True), ("cuda", True),
     ("rtx", True), ("h200", True), ("jetson-orin-jp6", True)],
)  # fmt: skip
def test_a_target_computes_on_a_gpu_if_its_backend_does(name, on_gpu):
    assert load_target(name).uses_gpu is on_gpu


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode("utf-16"),
        GOOD.encode("utf-8-sig"),
        GOOD.encode() + b"\nx = " + b"[" * 100_000,
        GOOD.encode() + b"\n" + b".".join([b"a"] * 100) + b" = 1",
        GOOD.encode() + b"\n[" + b".".join([b"a"] * 5000) + b"]",
        GOOD.encode() + b"\n" + b".".join([b"a"] * 1_000_000) + b" = 1",
        GOOD.replace("threads = 3", "threads = true").encode(),
        GOOD.replace("threads = 3", "threads = nan").encode(),
        GOOD.replace("threads = 3", f"threads = {'9' * 5000}").encode(),
        GOOD.replace("threads = 3", f"threads = 0x{'f' * 20}").encode(),
        GOOD.replace("threads = 3", "threads = 1979-05-27").encode(),
    ],
)
def test_hostile_toml_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(TargetError) as caught:
        load_target(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "mine.toml")
    with pytest.raises(TargetError, match="not a regular file"):
        load_target(str(tmp_path / "mine.toml"))
