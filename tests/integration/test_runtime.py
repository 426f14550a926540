"""The library API: encode images to payloads, classify payloads."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from ccr_deploy import runtime
from ccr_deploy.codec.payload import encode_payload
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.engines.store import ENVIRONMENT_VARIABLE, EngineStore
from ccr_deploy.errors import EngineError, MissingExtraError, PayloadError, WrongUsageError
from ccr_deploy.runtime import Classifier, Encoder
from ccr_deploy.workflow.build import build_engines

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle

IMAGES = np.random.default_rng(7).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)


def test_a_batch_gives_the_same_results_as_its_images_alone(
    tiny_bundle: Bundle, built_store: EngineStore
) -> None:
    with (
        Encoder.load(tiny_bundle, "cpu", built_store) as encoder,
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
    ):
        payloads = encoder.encode(IMAGES)
        assert payloads == [encoder.encode(image[None])[0] for image in IMAGES]
        predictions = classifier.classify(payloads)
        single = [classifier.classify([payload])[0] for payload in payloads]
        assert [p.label for p in predictions] == [p.label for p in single]
        assert all(p.name == tiny_bundle.manifest.class_names[p.label] for p in predictions)
        assert all(0.2 <= p.probability <= 1 for p in predictions)  # the largest of five
        assert classifier.classify([]) == []


def test_the_example_of_the_module_runs(
    tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(built_store.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(tiny_bundle.path)
    Image.fromarray(IMAGES[0]).save("photo.jpg")
    assert runtime.__doc__
    (example,) = re.findall(r"Example::\n\n((?: {4}.*\n|\n)+)", runtime.__doc__)
    names: dict[str, object] = {}
    exec(textwrap.dedent(example), names)  # noqa: S102 -- the example of our own module
    prediction = names["prediction"]
    assert isinstance(prediction, runtime.Prediction)
    assert prediction.name in tiny_bundle.manifest.class_names


def test_a_payload_of_another_training_is_refused(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    other = replace(tiny_bundle.manifest.contract, encoder_digest="0" * 64)
    payload = encode_payload(np.zeros(other.code_bytes, np.uint8), other)
    with (
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
        pytest.raises(PayloadError) as raised,
    ):
        classifier.classify([payload])
    assert other.contract_id in str(raised.value)
    assert tiny_bundle.manifest.contract_id in str(raised.value)


def test_a_closed_encoder_raises(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    with Encoder.load(tiny_bundle, "cpu", built_store) as encoder:
        pass
    with pytest.raises(EngineError, match="closed"):
        encoder.encode(IMAGES)


def test_a_bundle_is_given_by_path_or_opened(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    answers = []
    for bundle in (tiny_bundle, tiny_bundle.path, str(tiny_bundle.path)):
        with Encoder.load(bundle, "cpu", built_store) as encoder:
            answers.append(encoder.encode(IMAGES))
            assert encoder.bundle == tiny_bundle
    assert answers == answers[:1] * 3


def test_the_default_store_is_the_environments(
    tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(built_store.path))
    with Classifier.load(tiny_bundle.path, "cpu") as classifier:
        assert classifier.classify([]) == []


def test_the_last_built_engine_is_loaded_without_the_targets_file(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    """A device needs no target files: the store records how the engine was built."""
    target = tmp_path / "mine.toml"
    target.write_text('description = ""\nbackend = "onnxruntime"\n[options]\nthreads = 1\n')
    store = EngineStore(tmp_path / "engines")
    build_engines(tiny_bundle, str(target), store, ("encoder", "classifier"))
    target.unlink()
    with (
        Encoder.load(tiny_bundle.path, str(target), store) as encoder,
        Classifier.load(tiny_bundle.path, str(target), store) as classifier,
    ):
        assert len(classifier.classify(encoder.encode(IMAGES))) == len(IMAGES)


def test_the_last_built_precision_is_loaded(tiny_bundle: Bundle, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    build_engines(tiny_bundle, "cpu-openvino", store, ("encoder",))
    (note,) = store.path.glob("chosen.*.json")
    content = json.loads(note.read_text())
    assert content["stages"]["encoder"]["precision"] == "fp32"
    content["stages"]["encoder"]["precision"] = "bf16"
    note.write_text(json.dumps(content))
    with pytest.raises(WrongUsageError, match=r"no bf16 encoder engine .* --bf16$"):
        Encoder.load(tiny_bundle, "cpu-openvino", store)


def test_a_stage_that_was_not_built_is_reported_with_the_command(tiny_bundle: Bundle, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines")
    build_engines(tiny_bundle, "cpu", store, ("encoder",))
    with pytest.raises(WrongUsageError) as caught:
        Classifier.load(tiny_bundle, "cpu", store)
    assert "no classifier engine of" in str(caught.value)
    assert str(caught.value).endswith(f"ccr-deploy build-engine {tiny_bundle.path} --target cpu")


def test_an_engine_of_another_machine_is_refused_and_named(
    tiny_bundle: Bundle, own_store: EngineStore
) -> None:
    for number, sidecar in enumerate(sorted(own_store.path.glob("*/encoder.*.json"))):
        content = json.loads(sidecar.read_text())
        content["key"]["device"] = "another CPU"
        sidecar.write_text(json.dumps(content))
        sidecar.parent.rename(own_store.path / f"elsewhere{number}")
    with pytest.raises(WrongUsageError, match="found one with device another CPU, expected"):
        Encoder.load(tiny_bundle, "cpu", own_store)


@pytest.mark.parametrize("damage", ["engine", "sidecar", "field"])
def test_a_damaged_engine_is_refused(damage: str, tiny_bundle: Bundle, own_store: EngineStore) -> None:
    (engine,) = own_store.path.glob("*/encoder.fp32.onnx")
    if damage == "engine":
        engine.write_bytes(engine.read_bytes()[:-1])
        message = "damaged or changed"
    elif damage == "sidecar":
        sidecar_path(engine).write_text("{")
        message = "not JSON"
    else:
        content = json.loads(sidecar_path(engine).read_text())
        content["key"]["backend_version"] = "0.1"
        sidecar_path(engine).write_text(json.dumps(content))
        message = "its sidecar's backend_version is 0.1"
    with pytest.raises(EngineError, match=message):
        Encoder.load(tiny_bundle, "cpu", own_store)


def test_a_folder_without_a_bundle_is_wrong_usage(built_store: EngineStore, tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="no bundle found"):
        Encoder.load(tmp_path, "cpu", built_store)


def test_a_missing_backend_is_reported_with_its_extra(
    tiny_bundle: Bundle, built_store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        Encoder.load(tiny_bundle, "cpu", built_store)


def test_a_batch_with_one_bad_payload_is_refused(tiny_bundle: Bundle, built_store: EngineStore) -> None:
    with (
        Encoder.load(tiny_bundle, "cpu", built_store) as encoder,
        Classifier.load(tiny_bundle, "cpu", built_store) as classifier,
    ):
        good, other, *_ = encoder.encode(IMAGES)
        with pytest.raises(PayloadError, match="damaged"):
            classifier.classify([good, other[:-1] + bytes([other[-1] ^ 1])])


@pytest.mark.parametrize("images", [IMAGES[0], IMAGES.astype(np.float32), IMAGES[:, :16], IMAGES[:0]])
def test_images_of_another_shape_or_dtype_are_refused(
    images, tiny_bundle: Bundle, built_store: EngineStore
) -> None:
    with (
        Encoder.load(tiny_bundle, "cpu", built_store) as encoder,
        pytest.raises(EngineError, match="expected"),
    ):
        encoder.encode(images)
