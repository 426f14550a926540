"""The bundle: what is refused, and that no error or kill leaves a partial bundle."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from ccr_deploy.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FileRecord,
    GraphRecord,
    Manifest,
    SampleRecord,
    parse_manifest,
)
from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.bundle.writer import BundleWriter, writing_bundle
from ccr_deploy.codec.contract import CodeContract, Preprocessing
from ccr_deploy.core.records import to_json
from ccr_deploy.errors import BundleError, WrongUsageError
from ccr_deploy.models.config import ClassifierConfig, EncoderConfig, ModelConfig

MODEL = ModelConfig(
    image_height=32,
    image_width=32,
    iterations=2,
    encoder=EncoderConfig(stem_channels=8, cell_channels=(8, 8, 8), code_channels=8),
    classifier=ClassifierConfig(cut="layer3", classes=3, stage_channels=(8, 8, 8, 8)),
)
CONTRACT = CodeContract(
    image_height=32,
    image_width=32,
    preprocessing=Preprocessing(resize_to_cover=(32, 32)),
    iterations=2,
    code_channels=8,
    encoder_digest="ab" * 32,
)


class InterruptedWriteError(Exception):
    """An error in the middle of writing."""


def fill(
    writer: BundleWriter, content: str = "first", names: tuple[str, ...] = ("ant", "bee", "cat")
) -> Manifest:
    """Add a graph, weights and a sample with bytes made from `content`; the manifest is not committed."""

    def add(stem: str, suffix: str) -> FileRecord:
        return writer.add(stem, suffix, lambda path: path.write_text(f"{stem} {content}"))

    return Manifest(
        schema_version=SCHEMA_VERSION,
        created_by=f"ccr-deploy {content}",
        model=MODEL,
        trained_iterations=(2,),
        class_names=names,
        metrics={"top1_percent": 50.0},
        contract=CONTRACT,
        contract_id=CONTRACT.contract_id,
        weights=add("weights", ".safetensors"),
        graphs=(
            GraphRecord(
                stage="encoder",
                precision="fp32",
                schedule="layer-major",
                graph_hash="cd" * 32,
                convolutions=40,
                quantized_convolutions=0,
                file=add("encoder.fp32.layer-major", ".onnx"),
            ),
        ),
        samples=(SampleRecord(file=add("sample", ".png"), label=1),),
        baseline=None,
        calibration=None,
    )


def make(path: Path, content: str = "first") -> Bundle:
    with writing_bundle(path) as writer:
        writer.commit(fill(writer, content))
    return Bundle.open(path)


def begin(path: Path, error: type[BaseException], *, commit: bool = False) -> None:
    """Write all files of a second bundle, then raise an error."""
    with writing_bundle(path) as writer:
        manifest = fill(writer, "second")
        if commit:
            writer.commit(manifest)
        raise error


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def edit(bundle: Bundle, change) -> Path:
    """Rewrite the manifest after `change` has modified its dictionary."""
    path = bundle.path / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def refusal(path: Path) -> str:
    """Return the one-line message with which opening fails."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading


def test_a_written_bundle_opens(tmp_path):
    assert make(tmp_path / "bundle").manifest.created_by == "ccr-deploy first"


def test_file_names_contain_the_hash(tmp_path):
    bundle = make(tmp_path)
    for record in bundle.manifest.files():
        assert f".{sha256_of(tmp_path / record.name)[:12]}." in record.name


def test_a_bundle_contains_only_the_manifest_and_the_listed_files(tmp_path):
    bundle = make(tmp_path)
    named = {record.name for record in bundle.manifest.files()}
    assert set(contents(tmp_path)) == {MANIFEST, *named}


def test_the_path_of_an_undamaged_file_is_returned(tmp_path):
    bundle = make(tmp_path)
    assert bundle.file(bundle.manifest.weights).read_text() == "weights first"


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_missing_bundle_is_wrong_usage_with_the_command_to_create_one(tmp_path, kind):
    path = tmp_path / "bundle"
    if kind == "empty":
        path.mkdir()
    if kind == "file":
        path.write_text("a file")
    with pytest.raises(WrongUsageError, match="ccr-deploy export --checkpoint FILE") as caught:
        Bundle.open(path)
    assert f"{path}: no bundle found" in str(caught.value)


@pytest.mark.parametrize("version", [2, 4, "3", None])
def test_another_schema_version_is_refused(tmp_path, version):
    path = edit(make(tmp_path), lambda content: content.update(schema_version=version))
    message = refusal(tmp_path)
    assert f"{path}: schema version {version} is not supported, expected 3" in message
    assert "export the bundle again" in message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda content: content.update(surprise=1), "surprise"),
        (lambda content: content["model"].update(surprise=1), "model.surprise"),
        (lambda content: content["model"]["encoder"].update(surprise=1), "model.encoder.surprise"),
        (lambda content: content["graphs"][0].update(surprise=1), "graphs.0.surprise"),
        (lambda content: content["weights"].update(surprise=1), "weights.surprise"),
        (lambda content: content["contract"].update(surprise=1), "contract.surprise"),
        (lambda content: content["samples"][0]["file"].update(surprise=1), "samples.0.file.surprise"),
    ],
)
def test_an_unknown_field_is_refused_and_named(tmp_path, change, field):
    path = edit(make(tmp_path), change)
    assert f"{path}: field {field}: " in refusal(tmp_path)


def test_a_bundle_without_a_flip_tolerance_can_be_read(tmp_path):
    edit(make(tmp_path), lambda content: content.pop("tolerance"))
    assert Bundle.open(tmp_path).manifest.tolerance is None


@pytest.mark.parametrize("field", sorted({*Manifest.__struct_fields__} - {"tolerance"}))
def test_a_missing_field_is_refused_and_named(tmp_path, field):
    edit(make(tmp_path), lambda content: content.pop(field))
    if field == "schema_version":
        assert "schema version None" in refusal(tmp_path)
    else:
        assert f"field {field}: " in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda content: content["model"].update(iterations=0), "model.iterations"),
        (lambda content: content.update(trained_iterations=[2, 33]), "trained_iterations"),
        (lambda content: content.update(trained_iterations=[2, 2]), "trained_iterations"),
        (lambda content: content["graphs"][0].update(schedule="sideways"), "graphs.0.schedule"),
        (lambda content: content["weights"].update(sha256="12"), "weights.sha256"),
        (lambda content: content["weights"].update(name="../weights"), "weights.name"),
        (lambda content: content["contract"].update(bit_order="lsb-first"), "contract.bit_order"),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(tmp_path, change, field):
    edit(make(tmp_path), change)
    assert f"field {field}: " in refusal(tmp_path)


def test_a_wrong_contract_id_is_refused(tmp_path):
    edit(make(tmp_path), lambda content: content.update(contract_id="0" * 16))
    assert f"field contract_id: expected {CONTRACT.contract_id}, found {'0' * 16}" in refusal(tmp_path)


def test_a_changed_contract_is_refused_by_its_id(tmp_path):
    edit(make(tmp_path), lambda content: content["contract"].update(encoder_digest="1" * 64))
    assert "field contract_id" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", {"iterations": 3}), ("model", {"image_width": 4096}), ("contract", {"code_channels": 64})],
)
def test_model_and_contract_must_agree(tmp_path, field, value):
    edit(make(tmp_path), lambda content: content[field].update(value))
    assert "model and contract have different" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("trained", "warnings"),
    [
        ((2,), ()),
        ((1, 2, 3), ()),
        ((3,), ("T=2 was not trained: the checkpoint was trained with T=3",)),
        ((1, 3), ("T=2 was not trained: the checkpoint was trained with T=1, 3",)),
        ((), ("the checkpoint's weights were never trained",)),
    ],
)
def test_a_bundle_warns_about_untrained_iterations(tmp_path, trained, warnings):
    edit(make(tmp_path), lambda content: content.update(trained_iterations=trained))
    assert Bundle.open(tmp_path).manifest.warnings == warnings


def test_a_bundle_warns_about_untrained_iterations_of_its_baseline(tmp_path):
    def add_baseline(content):
        baseline = {
            "model": content["model"], "trained_iterations": [4, 8], "weights": content["weights"],
        }  # fmt: skip
        content.update(baseline=baseline)

    edit(make(tmp_path), add_baseline)
    expected = "T=2 was not trained: the baseline was trained with T=4, 8"
    assert Bundle.open(tmp_path).manifest.warnings == (expected,)


def test_class_names_must_match_the_number_of_classes(tmp_path):
    edit(make(tmp_path), lambda content: content.update(class_names=["only one"]))
    assert "1 class names for" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", ".notes.tmp"])
def test_a_file_of_another_program_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"schema_version": 1}')
    with pytest.raises(WrongUsageError, match="files that are not a bundle's"), writing_bundle(tmp_path):
        pass
    assert (tmp_path / name).read_text() == '{"schema_version": 1}'


def test_a_damaged_manifest_can_be_replaced(tmp_path):
    bundle = make(tmp_path)
    path = bundle.path / MANIFEST
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(KeyboardInterrupt), writing_bundle(bundle.path):
        raise KeyboardInterrupt
    make(tmp_path)
    Bundle.open(bundle.path)


def test_a_failed_first_write_leaves_no_parent_folder(tmp_path):
    with pytest.raises(ValueError, match="interrupted"), writing_bundle(tmp_path / "x" / "y" / "z"):
        raise ValueError("interrupted")
    assert list(tmp_path.iterdir()) == []


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_truncated_manifest_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bundle")
    with writing_bundle(folder) as writer:
        text = to_json(fill(writer)).encode()
    length = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BundleError, match=r"manifest\.json: not JSON, perhaps truncated"):
        parse_manifest(text[:length], folder / MANIFEST)


@given(
    st.text(max_size=20),
    st.lists(st.text(max_size=8), min_size=3, max_size=3),
    st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_a_manifest_round_trips_through_json(created_by, names, metrics):
    record = FileRecord(name="weights.0123456789ab.safetensors", sha256="0" * 64, bytes=3)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        created_by=created_by,
        model=MODEL,
        trained_iterations=(2,),
        class_names=tuple(names),
        metrics=metrics,
        contract=CONTRACT,
        contract_id=CONTRACT.contract_id,
        weights=record,
        graphs=(),
        samples=(SampleRecord(file=record, label=None),),
        baseline=None,
        calibration=None,
    )
    assert parse_manifest(to_json(manifest).encode(), Path(MANIFEST)) == manifest


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b"{}"])
def test_json_that_is_not_a_manifest_is_refused(text):
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        parse_manifest(text, Path(MANIFEST))


def test_a_missing_file_is_refused_and_named(tmp_path):
    weights = tmp_path / make(tmp_path).manifest.weights.name
    weights.unlink()
    message = refusal(tmp_path)
    assert f"{weights}: no such file" in message
    assert "export or copy the bundle again" in message


@pytest.mark.parametrize("size", [0, 5, 14])
def test_a_file_of_another_size_is_refused_and_both_sizes_named(tmp_path, size):
    record = make(tmp_path).manifest.weights
    (tmp_path / record.name).write_bytes(b"x" * size)
    message = refusal(tmp_path)
    assert (
        f"{tmp_path / record.name}: damaged or changed: it has {size} bytes, the manifest has {record.bytes}"
        in message
    )
    assert "export or copy the bundle again" in message


def test_a_file_of_the_same_size_with_another_hash_is_refused(tmp_path):
    bundle = make(tmp_path)
    record = bundle.manifest.weights
    path = tmp_path / record.name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match="damaged or changed: its SHA-256 is") as caught:
        bundle.file(record)
    assert str(path) in str(caught.value)
    assert record.sha256[:12] in str(caught.value)
    assert "export or copy the bundle again" in str(caught.value)


def test_a_file_removed_after_opening_is_refused(tmp_path):
    bundle = make(tmp_path)
    (tmp_path / bundle.manifest.weights.name).unlink()
    with pytest.raises(BundleError, match="no such file"):
        bundle.file(bundle.manifest.weights)


def test_a_graph_is_found_by_stage_precision_and_schedule(tmp_path):
    assert make(tmp_path).graph("encoder", "fp32", "layer-major").graph_hash == "cd" * 32


def test_a_schedule_that_was_not_exported_is_wrong_usage(tmp_path):
    with pytest.raises(WrongUsageError, match=r"has no fp32 plain encoder graph.*--schedule plain"):
        make(tmp_path).graph("encoder", "fp32", "plain")


def test_a_baseline_that_was_not_exported_is_wrong_usage(tmp_path):
    with pytest.raises(WrongUsageError, match=r"has no fp32 baseline graph.*--baseline CHECKPOINT"):
        make(tmp_path).graph("baseline", "fp32", None)


def test_a_class_is_named(tmp_path):
    assert make(tmp_path).manifest.class_name(1) == "bee"


def test_a_class_without_names_is_numbered(tmp_path):
    with writing_bundle(tmp_path) as writer:
        assert fill(writer, names=()).class_name(2) == "class 2"


# Writing


def test_a_second_commit_replaces_the_first(tmp_path):
    make(tmp_path)
    assert make(tmp_path, "second").manifest.created_by == "ccr-deploy second"


def test_files_that_a_new_manifest_does_not_name_are_removed(tmp_path):
    old = make(tmp_path).manifest.weights.name
    make(tmp_path, "second")
    assert not (tmp_path / old).exists()


def test_files_that_both_manifests_name_stay(tmp_path):
    bundle = make(tmp_path)
    with writing_bundle(tmp_path) as writer:
        writer.commit(structs.replace(bundle.manifest, graphs=()))
    assert bundle.file(bundle.manifest.weights).exists()


@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "sample.png", "weights.safetensors", "model.onnx", ".git", "Weights.0123456789ab.onnx"],
)
def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(WrongUsageError, match="contains files that are not a bundle's") as caught:
        make(tmp_path)
    assert name in str(caught.value)
    assert contents(tmp_path) == {name: b"precious"}


def test_a_bundle_with_a_foreign_file_is_refused_and_unchanged(tmp_path):
    make(tmp_path)
    (tmp_path / "notes.txt").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(WrongUsageError, match=r"notes\.txt"):
        make(tmp_path, "second")
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_a_bundle_error(tmp_path):
    path = tmp_path / "bundle"
    path.write_text("a file")
    with pytest.raises(BundleError, match="cannot be written"):
        make(path)


@pytest.mark.parametrize("error", [InterruptedWriteError, KeyboardInterrupt])
def test_an_error_before_the_commit_leaves_the_old_bundle_unchanged(tmp_path, error):
    make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(error):
        begin(tmp_path, error)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [InterruptedWriteError, KeyboardInterrupt])
def test_an_error_within_a_file_leaves_the_old_bundle_unchanged(tmp_path, error):
    make(tmp_path)
    before = contents(tmp_path)

    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(error), writing_bundle(tmp_path) as writer:
        writer.add("weights", ".safetensors", write)
    assert contents(tmp_path) == before


def test_an_error_after_the_commit_leaves_the_new_bundle(tmp_path):
    make(tmp_path)
    with pytest.raises(InterruptedWriteError):
        begin(tmp_path, InterruptedWriteError, commit=True)
    bundle = Bundle.open(tmp_path)
    assert bundle.file(bundle.manifest.weights).read_text() == "weights second"


@pytest.mark.parametrize("error", [InterruptedWriteError, KeyboardInterrupt])
def test_an_error_in_the_first_write_leaves_no_folder(tmp_path, error):
    path = tmp_path / "bundle"
    with pytest.raises(error):
        begin(path, error)
    assert not path.exists()


def test_an_error_in_an_empty_folder_leaves_it_empty(tmp_path):
    with pytest.raises(InterruptedWriteError):
        begin(tmp_path, InterruptedWriteError)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    ["weights.0123456789ab.safetensors", "encoder.fp32.plain.0123456789ab.onnx", ".weights.safetensors.tmp"],
)
def test_files_left_by_a_killed_run_are_removed_by_the_next(tmp_path, name):
    make(tmp_path)
    (tmp_path / name).write_text("stray")
    make(tmp_path, "second")
    assert not (tmp_path / name).exists()


def test_files_left_by_a_killed_run_do_not_prevent_reading(tmp_path):
    make(tmp_path)
    (tmp_path / ".weights.safetensors.tmp").write_text("stray")
    assert Bundle.open(tmp_path).manifest.created_by == "ccr-deploy first"


def test_a_second_writer_at_the_same_time_is_refused(tmp_path):
    make(tmp_path)
    with writing_bundle(tmp_path), pytest.raises(BundleError, match="another command is writing to it"):
        make(tmp_path, "second")


def test_a_refused_second_writer_does_not_affect_the_first(tmp_path):
    with writing_bundle(tmp_path) as writer:
        manifest = fill(writer)
        with pytest.raises(BundleError):
            make(tmp_path, "second")
        writer.commit(manifest)
    bundle = Bundle.open(tmp_path)
    assert [bundle.file(record).exists() for record in bundle.manifest.files()] == [True, True, True]


def test_a_writer_in_another_process_is_refused(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ccr_deploy.bundle.writer import writing_bundle\n"
        "from ccr_deploy.errors import BundleError\n"
        "try:\n"
        "    with writing_bundle(Path(sys.argv[1])): pass\n"
        "except BundleError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
    )
    with writing_bundle(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert done.stderr.startswith("refused: ")


def test_the_lock_is_released_when_its_writer_exits(tmp_path):
    with pytest.raises(InterruptedWriteError), writing_bundle(tmp_path):
        raise InterruptedWriteError
    assert make(tmp_path).manifest.created_by == "ccr-deploy first"


FULL_DISK = textwrap.dedent("""
    import resource, signal, sys
    from pathlib import Path
    from msgspec import structs
    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.bundle.writer import writing_bundle
    from ccr_deploy.errors import BundleError

    path, limit, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.dont_write_bytecode = True  # or it stays behind, cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with writing_bundle(path) as writer:
            if what == "file":
                writer.add("weights", ".safetensors", lambda file: file.write_bytes(bytes(limit + 1)))
            else:
                large = {"created_by": "ccr-deploy " + "x" * limit}
                writer.commit(structs.replace(Bundle.open(path).manifest, **large))
    except BundleError as error:
        sys.exit(f"bundle error: {error}")
""")


@pytest.mark.parametrize("what", ["file", "manifest"])
def test_a_full_disk_is_a_bundle_error_and_the_old_bundle_remains(tmp_path, what):
    make(tmp_path)
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), "4096", what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(f"bundle error: {tmp_path}: cannot be written"), done.stderr
    assert contents(tmp_path) == before


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from ccr_deploy.bundle.writer import writing_bundle

    def die(file=None):
        if file:
            file.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    with writing_bundle(Path(sys.argv[1])) as writer:
        writer.add("classifier.fp32", ".onnx", lambda file: file.write_text("whole"))
        if sys.argv[2] == "within a file":
            writer.add("weights", ".safetensors", die)
        die()
""")


def kill_in_the_middle(path: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["within a file", "before the commit"])
def test_a_killed_writer_leaves_the_old_bundle_readable(tmp_path, moment):
    make(tmp_path)
    kill_in_the_middle(tmp_path, moment)
    bundle = Bundle.open(tmp_path)
    assert bundle.file(bundle.manifest.weights).read_text() == "weights first"


@pytest.mark.parametrize("moment", ["within a file", "before the commit"])
def test_after_a_killed_writer_the_next_leaves_no_stray_files(tmp_path, moment):
    make(tmp_path)
    kill_in_the_middle(tmp_path, moment)
    bundle = make(tmp_path, "second")
    assert set(contents(tmp_path)) == {MANIFEST, *(record.name for record in bundle.manifest.files())}


def test_a_killed_first_writer_does_not_block_the_next(tmp_path):
    path = tmp_path / "bundle"
    kill_in_the_middle(path, "within a file")
    assert make(path).manifest.created_by == "ccr-deploy first"


@pytest.mark.parametrize("name", [".", "..", ".hidden", "-x"])
def test_an_invalid_file_name_is_refused(tmp_path, name):
    edit(make(tmp_path), lambda content: content["weights"].update(name=name))
    assert "field weights.name" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("weights", "bytes"), True),
        (("weights", "bytes"), -1),
        (("weights", "bytes"), "3"),
        (("samples", 0, "label"), True),
        (("samples", 0, "label"), 3),
        (("samples", 0, "label"), -1),
        (("samples",), []),
        (("metrics", "top1_percent"), True),
        (("metrics", "top1_percent"), float("nan")),
        (("metrics", "top1_percent"), float("inf")),
        (("model", "iterations"), True),
        (("model", "image_height"), 1 << 30),
        (("contract", "image_width"), True),
        (("contract", "preprocessing", "std"), [1e-50, 1, 1]),
        (("contract", "preprocessing", "mean"), [float("nan"), 0, 0]),
        (("class_names",), ["\ud800", "b", "c"]),
        (("class_names",), ["a", "b"]),
        (("created_by",), [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]),
    ],
)
def test_a_hostile_field_is_refused(tmp_path, place, value):
    def change(content):
        *way, last = place
        for step in way:
            content = content[step]
        content[last] = value

    edit(make(tmp_path), change)
    refusal(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_manifest_in_another_encoding_is_refused(tmp_path, encoding):
    path = make(tmp_path).path / MANIFEST
    path.write_text(path.read_text(), encoding=encoding)
    assert "not JSON" in refusal(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, "weights"])
def test_a_fifo_in_place_of_a_file_is_refused_without_blocking(tmp_path, name):
    bundle = make(tmp_path)
    path = tmp_path / (bundle.manifest.weights.name if name == "weights" else name)
    path.unlink()
    os.mkfifo(path)
    assert path.name in refusal(tmp_path)


def test_a_manifest_that_does_not_read_back_leaves_the_old_bundle(tmp_path):
    before = contents(make(tmp_path).path)

    def write() -> None:
        with writing_bundle(tmp_path) as writer:
            manifest = fill(writer, "second")
            manifest.metrics["top1_percent"] = float("nan")
            writer.commit(manifest)

    with pytest.raises(BundleError, match="metrics"):
        write()
    assert contents(tmp_path) == before


def test_a_file_that_does_not_read_back_leaves_the_old_bundle(tmp_path):
    before = contents(make(tmp_path).path)

    def write() -> None:
        with writing_bundle(tmp_path) as writer:
            manifest = fill(writer, "second")
            path = tmp_path / manifest.weights.name
            path.write_bytes(path.read_bytes()[::-1])
            writer.commit(manifest)

    with pytest.raises(BundleError, match="damaged"):
        write()
    assert contents(tmp_path) == before
