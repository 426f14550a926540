"""Bad input gets one error line that names the file, the right exit status, and leaves no partial files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from msgspec import structs
from PIL import Image

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.core.records import convert, to_json
from ccr_deploy.engines import factory as engine_factory
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.sidecar import Sidecar, sidecar_path
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.models.checkpoint import save_checkpoint
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

BROKE, WRONG_USAGE, GATE_FAILED, INTERRUPTED = 3, 2, 1, 130


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def engines(own_store: EngineStore) -> Path:
    """A store with that bundle's engines that a test may damage."""
    return own_store.path


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def engine_file(bundle: Path, engines: Path, stage: str) -> Path:
    return EngineFactory(Bundle.open(bundle), "cpu", EngineStore(engines)).find(stage).path


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    outcome = run("export", "--checkpoint", tmp_path / "none.pt", tmp_path / "bundle")
    assert outcome.status == WRONG_USAGE
    assert "none.pt: no such file" in outcome.error_line
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_truncated_checkpoint(kept: int, tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(tiny_checkpoint_file.read_bytes()[:kept])
    outcome = run("export", "--checkpoint", cut, tmp_path / "bundle")
    assert outcome.status == BROKE
    assert "cut.pt" in outcome.error_line
    assert not (tmp_path / "bundle").exists()


def test_a_baseline_given_as_the_checkpoint_is_refused(tiny_baseline: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tiny_baseline, tmp_path / "baseline.pt")
    outcome = run("export", "--checkpoint", tmp_path / "baseline.pt", tmp_path / "bundle")
    assert outcome.status == WRONG_USAGE
    assert "--baseline" in outcome.error_line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--iterations", "0"), "iterations"),
        (("--iterations", "33"), "iterations"),
        (("--iterations", "33", "--untrained-iterations"), "iterations"),
        (("--iterations", "2"), "T=2 was not trained: the checkpoint was trained with T=3: "),
        (("--trained-iterations", "2"), "was trained with T=3, as the file records, not with T=2: "),
        (("--image-size", "30", "48"), "not divisible by 16"),
    ],
)
def test_impossible_sizes(
    option: tuple[str, ...], message: str, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    outcome = run("export", "--checkpoint", tiny_checkpoint_file, *option, tmp_path / "bundle")
    assert outcome.status == WRONG_USAGE
    assert message in outcome.error_line


@pytest.mark.parametrize("given", ["", ",", "0", "33", "-1", "3,x", "3,", "2.5", "3,3"])
def test_trained_iterations_that_are_not_a_list_of_numbers(
    given: str, tiny_checkpoint_file: Path, tmp_path: Path
) -> None:
    outcome = run(
        "export", "--checkpoint", tiny_checkpoint_file, "--trained-iterations", given, tmp_path / "bundle"
    )
    assert outcome.status == WRONG_USAGE
    assert f"--trained-iterations '{given}': give different whole numbers from 1 to 32" in outcome.error_line


def test_an_output_folder_with_other_files(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    outcome = run("export", "--checkpoint", tiny_checkpoint_file, tmp_path)
    assert outcome.status == WRONG_USAGE
    assert "thesis.tex" in outcome.error_line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_output_folder_that_cannot_be_written(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    outcome = run("export", "--checkpoint", tiny_checkpoint_file, tmp_path / "file" / "bundle")
    assert outcome.status == BROKE
    assert "cannot be written" in outcome.error_line


def test_a_missing_bundle(tmp_path: Path) -> None:
    outcome = run("verify", tmp_path / "none")
    assert outcome.status == WRONG_USAGE
    assert "ccr-deploy export --checkpoint" in outcome.error_line


def test_a_manifest_of_another_version(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    outcome = run("verify", bundle)
    assert outcome.status == BROKE
    assert "schema version 99" in outcome.error_line


def test_a_truncated_manifest(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])
    outcome = run("build-engine", bundle)
    assert outcome.status == BROKE
    assert "manifest.json: not JSON" in outcome.error_line


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_graph(damage: str, bundle: Path, tmp_path: Path) -> None:
    (graph,) = bundle.glob("classifier.*.onnx")
    content = graph.read_bytes()
    if damage == "missing":
        graph.unlink()
    elif damage == "truncated":
        graph.write_bytes(content[:-100])
    else:
        graph.write_bytes(content[:-100] + bytes(100))
    outcome = run("build-engine", bundle, "--engines", tmp_path / "new-engines")
    assert outcome.status == BROKE
    assert graph.name in outcome.error_line


def test_engines_that_were_not_built(bundle: Path, tmp_path: Path) -> None:
    outcome = run("verify", bundle, "--engines", tmp_path / "empty")
    assert outcome.status == WRONG_USAGE
    assert f"ccr-deploy build-engine {bundle} --target cpu" in outcome.error_line


def test_an_unknown_target(bundle: Path) -> None:
    outcome = run("build-engine", bundle, "--target", "toaster")
    assert outcome.status == WRONG_USAGE
    assert "toaster" in outcome.error_line


def test_a_schedule_that_the_bundle_lacks(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    run("export", "--checkpoint", tiny_checkpoint_file, "--schedule", "plain", tmp_path / "bundle")
    outcome = run("build-engine", tmp_path / "bundle", "--engines", tmp_path / "engines")
    assert outcome.status == WRONG_USAGE
    assert "--schedule iteration-major" in outcome.error_line


def test_an_engine_changed_by_one_byte_is_refused(bundle: Path, engines: Path) -> None:
    path = engine_file(bundle, engines, "encoder")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    outcome = run("verify", bundle, "--engines", engines)
    assert outcome.status == BROKE
    assert "damaged or changed" in outcome.error_line


def test_a_damaged_engine_with_a_fitting_sidecar_fails_the_gates(bundle: Path, engines: Path) -> None:
    """The engine has other weights, and its sidecar fits: only its results differ."""
    import onnx
    from onnx import numpy_helper

    path = engine_file(bundle, engines, "encoder")
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
    changed = numpy_helper.to_array(weight) * np.float32(-1.5)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(model, path)
    sidecar = convert(Sidecar, json.loads(sidecar_path(path).read_text()))
    honest = {"engine_sha256": sha256_of(path), "engine_bytes": path.stat().st_size}
    sidecar_path(path).write_text(to_json(structs.replace(sidecar, **honest)))
    outcome = run("verify", bundle, "--engines", engines)
    assert outcome.status == GATE_FAILED
    assert "engine unexplained flips" in outcome.error_line
    assert "FAIL" in outcome.stdout


def test_a_gate_that_does_not_exist(bundle: Path) -> None:
    outcome = run("verify", bundle, "--gate", "max-regret=1")
    assert outcome.status == WRONG_USAGE
    assert "max-top1-loss-points" in outcome.error_line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "not an image"),
        (b"", "not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "image.png"),
    ],
)
def test_a_file_that_is_not_an_image(
    content: bytes, message: str, bundle: Path, engines: Path, tmp_path: Path
) -> None:
    (tmp_path / "image.png").write_bytes(content)
    outcome = run("classify", tmp_path / "image.png", "--bundle", bundle, "--engines", engines)
    assert outcome.status == BROKE
    assert message in outcome.error_line
    assert "image.png" in outcome.error_line


def test_an_image_that_is_too_small(bundle: Path, engines: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "dot.png")
    outcome = run("classify", tmp_path / "dot.png", "--bundle", bundle, "--engines", engines)
    assert outcome.status == BROKE
    assert "dot.png: 3x3 pixels are too few" in outcome.error_line


def test_an_empty_image_folder(bundle: Path, engines: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = run("verify", bundle, "--engines", engines, "--images", tmp_path / "empty")
    assert outcome.status == BROKE
    assert "no images" in outcome.error_line


def test_unknown_options_are_wrong_usage() -> None:
    assert run("verify", "--colour", "blue").status == WRONG_USAGE


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_export_leaves_the_old_bundle(
    sent: signal.Signals, status: int, bundle: Path, tiny_checkpoint_file: Path
) -> None:
    before = files_below(bundle)
    arguments = ["export", "--checkpoint", str(tiny_checkpoint_file), "--iterations", "2"]
    arguments += ["--untrained-iterations", str(bundle)]
    command = [sys.executable, "-m", "ccr_deploy", *arguments]
    with started(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # The first graph of the new bundle is there, its manifest is not: now.
        while process.poll() is None and len(files_below_names(bundle)) <= len(before):
            time.sleep(0.01)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == status
    opened = Bundle.open(bundle)
    assert opened.manifest.model.iterations == 3
    assert {name: digest for name, digest in files_below(bundle).items() if name in before} == before
    if sent == signal.SIGINT:
        assert files_below(bundle) == before
        assert stderr.strip().splitlines() == ["ccr-deploy: interrupted: no file is left incomplete"]
    else:
        repaired = run("export", "--checkpoint", tiny_checkpoint_file, "--schedule", "plain", bundle)
        assert repaired.status == 0
        named = {file.name for file in Bundle.open(bundle).manifest.files()}
        assert files_below_names(bundle) == named | {"manifest.json"}


def files_below_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_full_disk_leaves_no_incomplete_report(bundle: Path, engines: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: every larger write fails."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True  # or it stays behind, cut short\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from ccr_deploy.cli import main\n"
        "main()\n"
    )
    arguments = ["verify", str(bundle), "--engines", str(engines), "--report", str(tmp_path / "report")]
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path)}
    # The reference's engine is there already: only the report is written.
    EngineFactory(Bundle.open(bundle), "pytorch", EngineStore(engines)).build("encoder")
    EngineFactory(Bundle.open(bundle), "pytorch", EngineStore(engines)).build("classifier")
    EngineFactory(Bundle.open(bundle), "pytorch", EngineStore(engines)).build("baseline")
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == BROKE
    assert "the report cannot be written" in finished.stderr
    assert list((tmp_path / "report").iterdir()) == []


@pytest.mark.parametrize("command", ["verify", "benchmark"])
@pytest.mark.parametrize("name", ["verify.json", "benchmark.json", "report.md", "report.html"])
def test_a_report_does_not_overwrite_other_files(
    command: str, name: str, bundle: Path, engines: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / name).write_text('{"mine": true}')
    outcome = run(command, bundle, "--engines", engines, "--report", folder)
    assert outcome.status == WRONG_USAGE
    assert (
        f"notes: contains a {name} that ccr-deploy did not write: choose another folder" in outcome.error_line
    )
    assert (folder / name).read_text() == '{"mine": true}'
    assert [path.name for path in folder.iterdir()] == [name]


def edit_classifier(bundle: Path) -> None:
    """Changes the FP32 classifier's weights, and the manifest's size and hash of the file with it."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (graph,) = (
        entry
        for entry in manifest["graphs"]
        if (entry["stage"], entry["precision"]) == ("classifier", "fp32")
    )
    model = ir.load(bundle / graph["file"]["name"])
    bias = next(value for value in model.graph.initializers.values() if list(value.shape or ()) == [5])
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy()[::-1].copy() + 100, name=bias.name)
    path = bundle / "edited.onnx"
    ir.save(model, path)
    graph["file"] = {"name": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_an_edited_graph_does_not_share_engines_with_the_original(
    bundle: Path, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited graph under the honest graph's hash, with and without what recomputes that hash."""
    edit_classifier(bundle)
    store = tmp_path / "store"
    options = ("--target", "cpu", "--stage", "classifier", "--engines", store, "--json")
    outcome = run("build-engine", bundle, *options)
    assert outcome.status == BROKE
    assert "edited.onnx: its canonical hash begins " in outcome.error_line
    monkeypatch.setattr(engine_factory, "check_graph_hash", lambda *_: None)  # a device without onnx-ir
    (poisoned,) = json.loads(run("build-engine", bundle, *options).stdout)
    (honest,) = json.loads(run("build-engine", tiny_bundle.path, *options).stdout)
    assert honest["built_now"]
    assert honest["path"] != poisoned["path"]


def test_an_engine_that_returns_nan_fails_its_gates_in_the_report(
    bundle: Path, engines: Path, tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    path = engine_file(bundle, engines, "classifier")
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [5]]
    bias.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), bias.name))
    onnx.save(model, path)
    sidecar = convert(Sidecar, json.loads(sidecar_path(path).read_text()))
    honest = {"engine_sha256": sha256_of(path), "engine_bytes": path.stat().st_size}
    sidecar_path(path).write_text(to_json(structs.replace(sidecar, **honest)))
    for _ in range(2):  # the second reads what the first wrote
        outcome = run("verify", bundle, "--engines", engines, "--report", tmp_path / "report")
        assert outcome.status == GATE_FAILED
        assert "engine classifier cosine" in outcome.error_line
    assert "gates failed." in (tmp_path / "report" / "report.html").read_text()


def test_the_reference_is_not_compared_with_itself(bundle: Path, engines: Path) -> None:
    outcome = run("verify", bundle, "--engines", engines, "--target", "pytorch")
    assert outcome.status == WRONG_USAGE
    assert "the reference itself" in outcome.error_line


def test_names_in_brackets_are_shown_as_they_are(bundle: Path, engines: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo[copy][bold].png"
    Image.new("RGB", (60, 40), "red").save(image)
    outcome = run("classify", image, "--bundle", bundle, "--engines", engines)
    assert outcome.status == 0
    assert "photo[copy][bold].png" in outcome.stdout


def test_a_folder_of_some_classes_without_class_names(tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    """The labels of the folder are ambiguous."""
    save_checkpoint(replace(tiny_checkpoint, class_names=()), tmp_path / "nameless.pt")
    for name in ("one", "two"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(tmp_path / "val" / name / "1.png")
    outcome = run(
        "export", "--checkpoint", tmp_path / "nameless.pt", "--images", tmp_path / "val", tmp_path / "b"
    )
    assert outcome.status == BROKE
    assert "2 sub-folders for the model's 5 classes" in outcome.error_line
    assert not (tmp_path / "b").exists()
