"""Checkpoints: three formats are loaded; unsafe or unfit files are refused without running their code."""

import io
import os
import pickle
import resource
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from msgspec import structs

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.records import to_builtins
from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.checkpoint import (
    Checkpoint,
    build_model,
    encoder_digest,
    load_checkpoint,
    save_checkpoint,
    untrained_checkpoint,
)
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.presets import default_preprocessing, preset

TINY = ModelConfig(
    image_height=32,
    image_width=32,
    iterations=2,
    encoder=EncoderConfig(stem_channels=8, cell_channels=(8, 8, 8), code_channels=8),
    classifier=ClassifierConfig(cut="layer3", classes=3, stage_channels=(8, 8, 8, 8)),
)
TINY_BASELINE = structs.replace(
    TINY,
    decoder=DecoderConfig(cell_channels=(8, 8, 8, 8)),
    classifier=ClassifierConfig(cut=None, classes=3, stage_channels=(8, 8, 8, 8)),
)


def tiny() -> Checkpoint:
    return replace(
        untrained_checkpoint(TINY),
        trained_iterations=(2, 4),
        preprocessing=Preprocessing(resize_to_cover=(36, 40), resize_filter="lanczos"),
        class_names=("ant", "bee", "cat"),
        metrics={"top1_percent": 75.5},
    )


def demo_weights(classes: int = 16) -> dict[str, torch.Tensor]:
    config = preset("demo")
    classifier = structs.replace(config.classifier, classes=classes)
    return dict(untrained_checkpoint(structs.replace(config, classifier=classifier)).state_dict)


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def own_format(**changes: object) -> dict[str, object]:
    """Return the content of a file in the project's format, with some fields changed."""
    checkpoint = tiny()
    return {
        "format": "ccr-deploy checkpoint",
        "version": 2,
        "config": to_builtins(TINY),
        "trained_iterations": list(checkpoint.trained_iterations),
        "preprocessing": to_builtins(checkpoint.preprocessing),
        "class_names": list(checkpoint.class_names),
        "metrics": dict(checkpoint.metrics),
        "state_dict": dict(checkpoint.state_dict),
        **changes,
    }


def assert_same_weights(found, expected) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def refusal(path: Path, preset_name: str | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, preset_name)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Loading


def test_a_saved_checkpoint_loads_with_all_fields(tmp_path):
    path = tmp_path / "tiny.pt"
    save_checkpoint(tiny(), path)
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.preprocessing) == (TINY, tiny().preprocessing)
    assert (loaded.class_names, loaded.metrics) == (("ant", "bee", "cat"), {"top1_percent": 75.5})
    assert loaded.trained_iterations == (2, 4)
    assert_same_weights(loaded.state_dict, tiny().state_dict)


def test_a_saved_baseline_loads(tmp_path):
    path = tmp_path / "baseline.pt"
    checkpoint = untrained_checkpoint(TINY_BASELINE)
    save_checkpoint(checkpoint, path)
    assert_same_weights(load_checkpoint(path).state_dict, checkpoint.state_dict)


def test_the_saved_file_has_the_documented_fields(tmp_path):
    save_checkpoint(tiny(), tmp_path / "tiny.pt")
    content = torch.load(tmp_path / "tiny.pt", weights_only=True)
    assert set(content) == set(own_format())
    assert (content["format"], content["version"]) == ("ccr-deploy checkpoint", 2)


def test_saving_replaces_the_file_without_leftovers(tmp_path):
    path = tmp_path / "tiny.pt"
    path.write_bytes(b"old")
    save_checkpoint(tiny(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.pt"]
    assert load_checkpoint(path).config == TINY


def test_a_bare_state_dict_loads_with_a_preset(tmp_path):
    weights = demo_weights()
    loaded = load_checkpoint(save(weights, tmp_path / "bare.pt"), "demo")
    assert loaded.config == preset("demo")
    assert loaded.trained_iterations == (3,)
    assert loaded.preprocessing == default_preprocessing(preset("demo"))
    assert_same_weights(loaded.state_dict, weights)


@pytest.mark.parametrize(("trained", "run_with"), [((3,), 3), ((5,), 5), ((2, 3), 3), ((4, 5), 3)])
def test_trained_iterations_of_a_bare_state_dict_are_those_given(tmp_path, trained, run_with):
    """A single T becomes the T of the configuration; of several, the preset's T stays."""
    loaded = load_checkpoint(save(demo_weights(), tmp_path / "bare.pt"), "demo", trained)
    assert (loaded.trained_iterations, loaded.config.iterations) == (trained, run_with)


@pytest.mark.parametrize("given", [None, (2, 4), (4, 2)])
def test_trained_iterations_that_agree_with_the_file_are_accepted(tmp_path, given):
    path = save(own_format(), tmp_path / "x.pt")
    assert load_checkpoint(path, trained_iterations=given).trained_iterations == (2, 4)


def test_untrained_weights_have_no_trained_iterations(tmp_path):
    save_checkpoint(untrained_checkpoint(TINY), tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").trained_iterations == ()


def test_a_bare_state_dicts_number_of_classes_is_inferred(tmp_path):
    loaded = load_checkpoint(save(demo_weights(classes=5), tmp_path / "bare.pt"), "demo")
    assert loaded.config.classifier.classes == 5


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model.module._orig_mod."])
def test_a_wrappers_prefix_is_removed(tmp_path, prefix):
    weights = demo_weights()
    path = save({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "wrapped.pt")
    assert_same_weights(load_checkpoint(path, "demo").state_dict, weights)


def test_tensors_outside_the_wrapped_model_are_ignored(tmp_path):
    weights = {f"model.{name}": tensor for name, tensor in demo_weights().items()}
    path = save({"loss.weight": torch.ones(3), **weights}, tmp_path / "wrapped.pt")
    assert "loss.weight" not in load_checkpoint(path, "demo").state_dict


def test_a_lightning_checkpoint_loads_with_its_hyperparameters(tmp_path):
    own = own_format()
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in own["state_dict"].items()},
        "hyper_parameters": {
            "learning_rate": 1e-3,
            "checkpoint": {
                name: own[name]
                for name in ("config", "trained_iterations", "preprocessing", "class_names", "metrics")
            },
        },
        "optimizer_states": [],
    }
    loaded = load_checkpoint(save(content, tmp_path / "last.ckpt"))
    assert (loaded.config, loaded.class_names) == (TINY, ("ant", "bee", "cat"))
    assert loaded.trained_iterations == (2, 4)
    assert_same_weights(loaded.state_dict, own["state_dict"])


@pytest.mark.parametrize("hyper_parameters", [{}, None, {"learning_rate": 1e-3}])
def test_another_trainers_lightning_checkpoint_loads_with_a_preset(tmp_path, hyper_parameters):
    weights = demo_weights()
    content = {
        "state_dict": {f"net.{name}": tensor for name, tensor in weights.items()},
        "hyper_parameters": hyper_parameters,
    }
    assert_same_weights(load_checkpoint(save(content, tmp_path / "x.ckpt"), "demo").state_dict, weights)


def test_a_loaded_checkpoints_model_gives_the_same_logits(tmp_path):
    path = tmp_path / "tiny.pt"
    save_checkpoint(tiny(), path)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        assert torch.equal(build_model(load_checkpoint(path))(image), build_model(tiny())(image))


def test_a_built_model_is_in_evaluation_mode():
    assert not any(module.training for module in build_model(tiny()).modules())


def test_untrained_weights_depend_on_the_seed_alone():
    torch.manual_seed(7)
    first = untrained_checkpoint(TINY, seed=1)
    torch.manual_seed(8)
    assert_same_weights(untrained_checkpoint(TINY, seed=1).state_dict, first.state_dict)


def test_untrained_weights_leave_the_callers_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    untrained_checkpoint(TINY, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_encoders_digest_does_not_depend_on_the_order_of_names():
    weights = dict(tiny().state_dict)
    assert encoder_digest(dict(reversed(weights.items()))) == encoder_digest(weights)


def test_the_encoders_digest_does_not_depend_on_the_classifier():
    weights = dict(tiny().state_dict)
    changed = {**weights, "classifier.fc.bias": weights["classifier.fc.bias"] + 1}
    assert encoder_digest(changed) == encoder_digest(weights)


@pytest.mark.parametrize("name", [name for name in tiny().state_dict if name.startswith("encoder.")])
def test_the_encoders_digest_changes_with_each_of_its_tensors(name):
    weights = dict(tiny().state_dict)
    changed = weights[name].clone()
    changed.view(-1)[-1] += 1e-3
    assert encoder_digest({**weights, name: changed}) != encoder_digest(weights)


# Refusals


def test_a_missing_file_is_wrong_usage(tmp_path):
    with pytest.raises(WrongUsageError, match="no such file") as caught:
        load_checkpoint(tmp_path / "none.pt")
    assert str(tmp_path / "none.pt") in str(caught.value)


def test_a_bare_state_dict_without_a_preset_is_wrong_usage(tmp_path):
    path = save(demo_weights(), tmp_path / "bare.pt")
    with pytest.raises(WrongUsageError, match="--preset") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_an_unknown_preset_is_wrong_usage(tmp_path):
    path = save(demo_weights(), tmp_path / "bare.pt")
    with pytest.raises(WrongUsageError, match="unknown preset 'demon'"):
        load_checkpoint(path, "demon")


@pytest.mark.parametrize("content", [b"", b"I am no checkpoint\n", b"\x00" * 64, b"PK\x03\x04 zip?"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("part", [0.01, 0.25, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, part):
    path = tmp_path / "x.pt"
    save_checkpoint(tiny(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refusal(path)


def test_a_folder_is_refused(tmp_path):
    refusal(tmp_path)


@pytest.mark.parametrize("field", ["encoder.stem_channels", "classifier.classes"])
def test_widths_that_overflow_are_refused(tmp_path, field):
    config = to_builtins(TINY)
    part, _, name = field.partition(".")
    config[part][name] = 1 << 62
    assert f"field config.{field}" in refusal(save(own_format(config=config), tmp_path / "x.pt"))


def test_a_compressor_is_refused_with_the_command_that_trains_a_classifier(tmp_path):
    path = save(
        {"format": "ccr-deploy compressor", "version": 1, "state_dict": demo_weights()}, tmp_path / "x"
    )
    with pytest.raises(WrongUsageError, match="a compressor without a classifier") as caught:
        load_checkpoint(path, "demo")
    assert f"python -m training finetune --encoder-from {path}" in str(caught.value)


class Intruder:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def write_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, write_pickle], ids=["torch.save", "pickle"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, write):
    trace = tmp_path / "trace"
    write({"state_dict": demo_weights(), "hook": Intruder(trace)}, tmp_path / "evil.pt")
    assert "could run code" in refusal(tmp_path / "evil.pt", "demo")
    assert not trace.exists()


def test_the_code_would_run_in_an_unsafe_load(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Intruder(trace)))
    assert trace.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(build_model(tiny()), tmp_path / "model.pt")
    assert "save only its state dict" in refusal(tmp_path / "model.pt", "demo")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text"])
def test_a_file_without_a_dictionary_is_refused(tmp_path, content):
    assert "not a checkpoint or state dict" in refusal(save(content, tmp_path / "x.pt"))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, {"state_dict": None}])
def test_a_dictionary_without_tensors_is_refused(tmp_path, content):
    assert "it has no tensors" in refusal(save(content, tmp_path / "x.pt"), "demo")


def test_another_version_of_the_format_is_refused(tmp_path):
    path = save(own_format(version=1), tmp_path / "x.pt")
    assert "checkpoint version 1 is not supported, expected 2: train it again" in refusal(path)


@pytest.mark.parametrize("trained", [[0], [33], [-1, 3], [3, 3], [2.5], ["many"], 3, None])
def test_impossible_trained_iterations_are_refused_and_named(tmp_path, trained):
    path = save(own_format(trained_iterations=trained), tmp_path / "x.pt")
    assert "configuration field trained_iterations" in refusal(path)


@pytest.mark.parametrize("trained", [(0,), (33,), (3, 3)])
def test_a_checkpoint_cannot_be_made_with_impossible_trained_iterations(trained):
    with pytest.raises(CheckpointError, match="different numbers from 1 to 32"):
        replace(tiny(), trained_iterations=trained)


@pytest.mark.parametrize("given", [(3,), (2,), (2, 3, 4)])
def test_trained_iterations_that_contradict_the_file_are_wrong_usage(tmp_path, given):
    path = save(own_format(), tmp_path / "x.pt")
    with pytest.raises(
        WrongUsageError, match=r"x\.pt: was trained with T=2, 4, as the file records, not with T="
    ):
        load_checkpoint(path, trained_iterations=given)


def test_trained_iterations_for_untrained_weights_are_wrong_usage(tmp_path):
    save_checkpoint(untrained_checkpoint(TINY), tmp_path / "x.pt")
    with pytest.raises(WrongUsageError, match="was trained with no T, as the file records, not with T=3"):
        load_checkpoint(tmp_path / "x.pt", trained_iterations=(3,))


@pytest.mark.parametrize("field", ["config", "trained_iterations", "preprocessing", "class_names", "metrics"])
def test_a_missing_field_is_refused_and_named(tmp_path, field):
    content = own_format()
    del content[field]
    assert f"configuration field {field}: missing" in refusal(save(content, tmp_path / "x.pt"))


def test_a_wrong_configuration_is_refused_and_its_field_named(tmp_path):
    config = {**to_builtins(TINY), "iterations": 0}
    path = save(own_format(config=config), tmp_path / "x.pt")
    assert "configuration field config.iterations: " in refusal(path)


def test_an_unknown_field_of_the_configuration_is_refused_and_named(tmp_path):
    config = {**to_builtins(TINY), "surprise": 1}
    assert "field config.surprise: " in refusal(save(own_format(config=config), tmp_path / "x.pt"))


def test_a_wrong_number_of_class_names_is_refused(tmp_path):
    path = save(own_format(class_names=["ant", "bee"]), tmp_path / "x.pt")
    assert "2 class names for 3 classes" in refusal(path)


def test_missing_tensors_are_counted_and_the_first_shown(tmp_path):
    weights = dict(tiny().state_dict)
    gone = [name for name in weights if name.startswith("classifier.layer4.")]
    kept = {name: tensor for name, tensor in weights.items() if name not in gone}
    message = refusal(save(own_format(state_dict=kept), tmp_path / "x.pt"))
    assert f"{len(gone)} missing ({', '.join(gone[:3])}, …)" in message


def test_unexpected_tensors_are_counted_and_the_first_shown(tmp_path):
    weights = {**tiny().state_dict, "head.a": torch.ones(1), "head.b": torch.ones(1)}
    message = refusal(save(own_format(state_dict=weights), tmp_path / "x.pt"))
    assert "2 unexpected (head.a, head.b)" in message


def test_tensors_of_a_wrong_shape_are_counted_and_shown_with_both_shapes(tmp_path):
    weights = {**tiny().state_dict, "encoder.stem.weight": torch.ones(4, 3, 3, 3)}
    message = refusal(save(own_format(state_dict=weights), tmp_path / "x.pt"))
    assert "1 of a wrong shape (encoder.stem.weight is [4, 3, 3, 3] instead of [8, 3, 3, 3])" in message


def test_another_presets_weights_are_refused(tmp_path):
    path = save(dict(tiny().state_dict), tmp_path / "x.pt")
    assert "check --preset" in refusal(path, "demo")


def test_a_state_dict_of_a_foreign_model_is_refused(tmp_path):
    path = save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet.pt")
    assert "1 unexpected (conv1.weight)" in refusal(path, "demo")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused_and_named(tmp_path, value):
    weights = {name: tensor.clone() for name, tensor in tiny().state_dict.items()}
    weights["encoder.stem.weight"].view(-1)[5] = value
    message = refusal(save(own_format(state_dict=weights), tmp_path / "x.pt"))
    assert "1 tensors contain NaN or infinity (encoder.stem.weight)" in message


@pytest.mark.parametrize("text", ["epoch,loss\n1,2\n", "sorry\n", "training log: epoch 1\n", "{}"])
def test_text_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "log.pt"
    path.write_text(text)
    assert "\n" not in refusal(path)


@pytest.mark.parametrize("hyper_parameters", [{"checkpoint": "/path/x.ckpt"}, ["a"], "text"])
def test_hyperparameters_of_another_trainer_give_a_clean_error(tmp_path, hyper_parameters):
    content = {"state_dict": own_format()["state_dict"], "hyper_parameters": hyper_parameters}
    path = save(content, tmp_path / "x.pt")
    with pytest.raises((CheckpointError, WrongUsageError), match=r"x\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_names", None),
        ("class_names", [1, 2, 3]),
        ("metrics", [1]),
        ("metrics", {"top1": "high"}),
        ("preprocessing", {"resize_to_cover": (36, 40), "std": (0.0, 0.0, 0.0)}),
        ("preprocessing", {"resize_to_cover": (8, 8)}),
        ("preprocessing", {"resize_to_cover": (36, 40), "surprise": 1}),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, field, value):
    assert "x.pt" in refusal(save(own_format(**{field: value}), tmp_path / "x.pt"))


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_unusual_tensors_are_refused(tmp_path, kind):
    content = own_format()
    weight = content["state_dict"]["encoder.stem.weight"]
    content["state_dict"]["encoder.stem.weight"] = weight.to_sparse() if kind == "sparse" else weight.cfloat()
    assert "encoder.stem.weight" in refusal(save(content, tmp_path / "x.pt"))


# Malicious files, which declare wrong sizes or demand more memory than they have


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_metric_is_refused_and_named(tmp_path, value):
    path = save(own_format(metrics={"top1_percent": value}), tmp_path / "x.pt")
    assert "field metrics.top1_percent: expected a finite number" in refusal(path)
    with pytest.raises(CheckpointError, match="metric top1_percent is"):
        replace(tiny(), metrics={"top1_percent": value})


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e300])
def test_an_invalid_normalisation_is_refused_and_named(tmp_path, field, value):
    preprocessing = {"resize_to_cover": (36, 40), field: (0.5, value, 0.5)}
    assert "configuration field preprocessing" in refusal(
        save(own_format(preprocessing=preprocessing), tmp_path / "x.pt")
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trained_iterations", [True]),
        ("metrics", {"top1": True}),
        ("metrics", {"top1": torch.tensor(0.5)}),
        ("metrics", {"top1": 10**400}),
        ("class_names", ["ant", "bee", "\ud800"]),
        ("class_names", [["ant"] * 3] * 3),
        ("version", torch.ones(3)),
        ("version", True),
        ("config", torch.ones(3)),
        ("config", {1j: 2}),
    ],
)
def test_a_description_with_wrong_types_is_refused(tmp_path, field, value):
    refusal(save(own_format(**{field: value}), tmp_path / "x.pt"))


def test_hyperparameters_with_tensors_are_treated_as_another_trainers(tmp_path):
    content = {"state_dict": own_format()["state_dict"], "hyper_parameters": {"checkpoint": torch.ones(3)}}
    with pytest.raises(WrongUsageError, match="--preset"):
        load_checkpoint(save(content, tmp_path / "x.pt"))


def nested(depth: int) -> list[object]:
    content: list[object] = []
    for _ in range(depth):
        content = [content]
    return content


@pytest.mark.parametrize("depth", [40, 300])
def test_a_deeply_nested_description_is_refused(tmp_path, depth):
    assert "nested more than 32" in refusal(save(own_format(class_names=nested(depth)), tmp_path / "x.pt"))


def rewritten(content: object, path: Path, change) -> Path:
    """Rewrite the archive of a checkpoint; `change` returns each record's content and compression."""
    file = io.BytesIO()
    torch.save(content, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for record in old.infolist():
            data, compression = change(record.filename, old.read(record))
            new.writestr(record.filename, data, compression)
    return path


def test_a_rewritten_archive_loads(tmp_path):
    path = rewritten(own_format(), tmp_path / "x.pt", lambda _, data: (data, zipfile.ZIP_STORED))
    assert load_checkpoint(path).config == TINY


def test_a_compressed_record_is_refused(tmp_path):
    def change(name, data):
        return (bytes(1 << 30) if name.endswith("data/0") else data), zipfile.ZIP_DEFLATED

    path = rewritten(own_format(), tmp_path / "x.pt", change)
    assert path.stat().st_size < 4 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "records are compressed" in refusal(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 100 << 10


def test_records_larger_than_the_file_are_refused(tmp_path):
    """The directory lists one record many times, as in a zip bomb of overlapping records."""
    path = tmp_path / "x.pt"
    rewritten(own_format(), path, lambda _, data: (data, zipfile.ZIP_STORED))
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        largest.file_size = largest.compress_size = 1 << 40
        archive._didModify = True
    assert "declare" in refusal(path)


@pytest.mark.parametrize("spoil", [lambda data: b"x" + data, lambda data: data + b"x"])
def test_an_archive_with_bytes_before_or_after_it_is_refused(tmp_path, spoil):
    path = save(own_format(), tmp_path / "x.pt")
    path.write_bytes(spoil(path.read_bytes()))
    refusal(path)


def test_a_second_archive_after_the_first_is_refused(tmp_path):
    """Zip readers differ in which of two directories they use."""
    path = save(own_format(), tmp_path / "x.pt")
    path.write_bytes(path.read_bytes() * 2)
    assert "not an archive as torch.save writes it" in refusal(path)


class Allocation:
    """A pickle that allocates a gigabyte of zeros."""

    def __reduce__(self):
        return bytearray, (1 << 30,)


@pytest.mark.parametrize("write", [torch.save, write_pickle], ids=["torch.save", "pickle"])
def test_a_pickle_that_allocates_memory_is_refused_before_loading(tmp_path, write):
    write({"state_dict": demo_weights(), "extra": Allocation()}, tmp_path / "x.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "contains a bytearray" in refusal(tmp_path / "x.pt", "demo")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 100 << 10


def test_tensors_that_repeat_one_element_are_refused(tmp_path):
    weights = {**tiny().state_dict, "encoder.stem.weight": torch.zeros(1).expand(10**10)}
    config = to_builtins(TINY)
    assert "encoder.stem.weight" in refusal(
        save(own_format(state_dict=weights, config=config), tmp_path / "x.pt")
    )
    weights = {"encoder.stem.weight": torch.zeros(1).expand(1 << 40, 3, 3, 3)}
    config["encoder"]["stem_channels"] = 1 << 40
    refusal(save(own_format(state_dict=weights, config=config), tmp_path / "x.pt"))


def test_a_checkpoint_of_the_old_file_format_loads(tmp_path):
    torch.save(own_format(), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "x.pt").config == TINY


def test_pytorchs_advice_to_load_unsafely_is_not_shown(tmp_path):
    save({"state_dict": demo_weights(), "hook": Intruder(tmp_path / "trace")}, tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt", "demo")
    assert "can still be loaded" not in message
    assert "weights_only" not in message
    assert "(posix.system)" in message


def test_a_fifo_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    assert "not a regular file" in refusal(tmp_path / "x.pt")
