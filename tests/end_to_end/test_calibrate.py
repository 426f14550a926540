"""`calibrate` and engines of lower precision on the command line, and their errors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest

from benchmarks.hosts.processes import hearing_ctrl_c
from ccr_deploy.backends.openvino.cpu import OpenVinoBackend
from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.engines.sidecar import read_sidecar, sidecar_path
from ccr_deploy.graphs.canonical_hash import canonical_graph_hash
from tests.support.busy import busy_machine
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from tests.support.cli_runner import Outcome
    from tests.support.demo import CalibratedDemo

pytestmark = pytest.mark.usefixtures("short_rounds")

WRONG_USAGE, BROKE, INTERRUPTED = 2, 3, 130
AT_A_IMAGE = """
import os, signal, sys
sent = int(sys.argv.pop(1))
opened = 0
def watch(event, arguments):
    global opened
    if event == "open" and str(arguments[0]).endswith(".png"):
        opened += 1
        if opened == 48:
            os.kill(os.getpid(), sent)
from ccr_deploy.cli import main
sys.addaudithook(watch)
main()
"""
"""Signals itself in the middle of finding ranges, when it is about to open its 48th image."""


@dataclass(frozen=True)
class Workplace:
    """A copy of the calibrated bundle, its images, and an engine store."""

    bundle: Path
    images: Path
    held_out: Path
    engines: Path

    def build(self, *options: object, target: str = "cpu-openvino") -> Outcome:
        return run(
            "build-engine", self.bundle, "--target", target, "--engines", self.engines, *options
        )  # fmt: skip


@pytest.fixture
def workplace(calibrated_demo: CalibratedDemo, tmp_path: Path) -> Workplace:
    shutil.copytree(calibrated_demo.bundle.path, tmp_path / "bundle")
    return Workplace(
        tmp_path / "bundle", calibrated_demo.images, calibrated_demo.folder / "images", tmp_path / "engines"
    )


def without_int8(bundle: Path) -> None:
    """Makes the bundle what it was before it was calibrated."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["graphs"] = [graph for graph in manifest["graphs"] if graph["precision"] != "int8"]
    manifest["calibration"] = None
    path.write_text(json.dumps(manifest))


def test_calibrate_prints_ranges_accuracies_and_files(workplace: Workplace, tmp_path: Path) -> None:
    without_int8(workplace.bundle)
    outcome = run(
        "calibrate", workplace.bundle, "--images", workplace.images, "--held-out", workplace.held_out,
        "--samples", 64, "--held-out-samples", 160, "--save-table", tmp_path / "ranges.json",
    )  # fmt: skip
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "encoder cell3/hidden_state" in outcome.stdout
    for heading in ("FP32", "FP16", "BF16", "INT8"):
        assert f"\n  {heading}" in outcome.stdout
    assert "layers in high precision: stem, binarizer" in outcome.stdout
    bundle = Bundle.open(workplace.bundle)
    assert bundle.has_precision("int8")
    calibration = bundle.manifest.calibration
    assert calibration is not None
    assert calibration.accuracies[0].images == 160
    assert bundle.file(calibration.table).read_text() == (tmp_path / "ranges.json").read_text()
    compared = run("calibrate", "--compare", tmp_path / "ranges.json", tmp_path / "ranges.json")
    assert compared.stdout.strip().endswith(" have the same ranges")


def test_json_has_the_results(workplace: Workplace) -> None:
    outcome = run(
        "calibrate", workplace.bundle, "--images", workplace.images, "--samples", 32, "--method", "minmax",
        "--held-out-samples", 16, "--keep-high-precision", "", "--json",
    )  # fmt: skip
    found = json.loads(outcome.stdout)
    assert found["calibration"]["high_precision"] == []
    assert [entry["precision"] for entry in found["calibration"]["accuracies"]] == [*PRECISIONS]
    assert found["sensitivity"] == []


def test_sensitivity_ranks_layers_and_auto_keeps_the_proposed_ones(workplace: Workplace) -> None:
    outcome = run(
        "calibrate", workplace.bundle, "--images", workplace.images, "--samples", 48,
        "--held-out-samples", 8, "--keep-high-precision", "auto", "--json",
    )  # fmt: skip
    found = json.loads(outcome.stdout)
    assert len([layer for layer in found["sensitivity"] if layer["stage"] == "encoder"]) == 7
    assert found["calibration"]["high_precision"] == found["proposed_high_precision"]


def test_tables_that_differ_are_compared_tensor_by_tensor(workplace: Workplace, tmp_path: Path) -> None:
    table = next(workplace.bundle.glob("calibration.*.json"))
    changed = json.loads(table.read_text())
    changed["stages"]["encoder"]["tensors"]["normalise"]["high"] *= 2
    other = tmp_path / "other.json"
    other.write_text(json.dumps(changed))
    (entry,) = json.loads(run("calibrate", "--compare", table, other, "--json").stdout)
    assert (entry["stage"], entry["tensor"]) == ("encoder", "normalise")
    assert entry["ratio"] == pytest.approx(2, rel=0.2)
    assert "encoder normalise" in run("calibrate", "--compare", table, other).stdout


def test_verify_benchmark_and_classify_use_the_last_build(workplace: Workplace) -> None:
    baseline = "fp16" if "fp16" in OpenVinoBackend().native_precisions() else "fp32"
    built = workplace.build("--int8", "--json")
    assert (built.status, built.stderr) == (0, "")
    engines = json.loads(built.stdout)
    assert [engine["key"]["precision"] for engine in engines] == ["int8", "int8"]
    for engine in engines:
        verdict = engine["verdict"]
        assert [entry["precision"] for entry in verdict["candidates"]] == [baseline, "int8"]
        assert verdict["candidates"][1]["accuracy"]["images"] == 320
        assert verdict["high_precision"] == ["stem", "binarizer"]
        assert json.loads(sidecar_path(Path(engine["path"])).read_text())["verdict"] == verdict
    common = (workplace.bundle, "--target", "cpu-openvino", "--engines", workplace.engines)
    verified = json.loads(run("verify", *common, "--images", workplace.held_out, "--json").stdout)
    assert {engine["precision"] for engine in verified["engines"]} == {"int8"}
    assert all(gate["passed"] for gate in verified["gates"]), verified["gates"]
    levels = {gate["level"] for gate in verified["gates"] if gate["gate"] == "unexplained flips"}
    assert levels == {"fp32-graph"}
    timed = json.loads(run("benchmark", *common, "--rounds", 2, "--json").stdout)
    names = [entry["candidate"] for entry in timed["timings"] if entry["subject"] == "chain"]
    assert names[:3] == ["PyTorch eager", "openvino int8", "openvino fp32"]
    image = next(workplace.held_out.rglob("*.png"))
    classified = run(
        "classify", "--bundle", workplace.bundle, "--target", "cpu-openvino", "--engines", workplace.engines,
        image,
    )  # fmt: skip
    assert (classified.status, classified.stderr) == (0, "")


def test_the_verdict_is_printed_as_text(workplace: Workplace) -> None:
    outcome = workplace.build("--int8", "--accuracy-budget", 100, target="cpu")
    times = r"[0-9.]+ times as fast as FP32 \(95 % interval [0-9.]+ – [0-9.]+; [0-9.]+ ms, FP32 [0-9.]+ ms\)"
    # A machine that is busy now gives no verdict on speed.
    lines = rf"INT8(?: is {times}| is NOT FASTER on this machine: {times}|: the timing is UNRELIABLE )"
    assert len(re.findall(lines, outcome.stdout)) == 2
    assert "within the budget of 100 points" in outcome.stdout
    assert "layers in high precision: stem, binarizer" in outcome.stdout
    record = workplace.bundle / "manifest.json"
    manifest = json.loads(record.read_text())
    for entry in manifest["calibration"]["accuracies"]:
        entry["top1_loss_points"] = 3.0 if entry["precision"] == "int8" else 0.0
    record.write_text(json.dumps(manifest))
    outcome = workplace.build("--int8")
    assert "3.0 points of top-1" in outcome.stdout
    assert "OVER THE BUDGET of 1 points" in outcome.stdout
    automatic = json.loads(workplace.build("--auto", "--json").stdout)
    assert all(engine["key"]["precision"] != "int8" for engine in automatic)
    for engine in automatic:
        compared = {entry["precision"] for entry in engine["verdict"]["candidates"]}
        assert compared >= {"fp32", "int8"}
        assert engine["verdict"]["precision"] == engine["key"]["precision"]


def spoil(bundle: Path, stage: str, precision: str) -> None:
    """Replaces a graph by one that no backend can build, as a bundle of its own would hold it."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for graph in manifest["graphs"]:
        if (graph["stage"], graph["precision"]) == (stage, precision):
            model = ir.load(bundle / graph["file"]["name"])
            next(node for node in model.graph if node.op_type == "Conv").op_type = "Convolve"
            content = ir.to_proto(model).SerializeToString()
            digest = hashlib.sha256(content).hexdigest()
            name = f"spoilt.{digest[:12]}.onnx"
            (bundle / name).write_bytes(content)
            graph["file"] = {"name": name, "sha256": digest, "bytes": len(content)}
            graph["graph_hash"] = canonical_graph_hash(model)
    path.write_text(json.dumps(manifest))


def test_auto_skips_a_precision_that_cannot_be_built_with_the_reason(workplace: Workplace) -> None:
    spoil(workplace.bundle, "encoder", "int8")
    outcome = workplace.build("--auto", "--accuracy-budget", 100)
    assert (outcome.status, outcome.stderr) == (0, "")
    (line,) = [line for line in outcome.stdout.splitlines() if "was skipped" in line]
    assert re.fullmatch(r"  INT8 was skipped: .*spoilt\.\w+\.onnx: OpenVINO .* cannot build it .*", line)
    encoder, classifier = json.loads(workplace.build("--auto", "--json").stdout)
    assert encoder["key"]["precision"] != "int8"
    assert [entry["precision"] for entry in encoder["verdict"]["refused"]] == ["int8"]
    assert classifier["verdict"]["refused"] == []
    outcome = workplace.build("--int8")
    assert outcome.status == BROKE
    assert "cannot build it" in outcome.error_line


def test_without_fp32_another_precision_is_chosen(workplace: Workplace) -> None:
    spoil(workplace.bundle, "classifier", "fp32")
    stage = ("--stage", "classifier", "--accuracy-budget", 100)
    for options in (("--auto", "--json"), ("--int8", "--json")):
        (classifier,) = json.loads(workplace.build(*options, *stage, target="cpu").stdout)
        assert classifier["key"]["precision"] == "int8"
        assert [entry["precision"] for entry in classifier["verdict"]["refused"]] == ["fp32"]
    assert (
        "INT8 was not timed: it is the only precision that could be built"
        in workplace.build("--int8", *stage, target="cpu").stdout
    )
    spoil(workplace.bundle, "classifier", "int8")
    outcome = workplace.build("--auto", *stage, target="cpu")
    assert outcome.status == BROKE
    assert "cannot load it" in outcome.error_line


def test_a_verdict_from_a_busy_machine_is_unreliable_without_speed_up(workplace: Workplace) -> None:
    command = [
        sys.executable, "-m", "ccr_deploy", "build-engine", workplace.bundle, "--target", "cpu-openvino",
        "--engines", workplace.engines, "--auto", "--accuracy-budget", "100",
    ]  # fmt: skip
    with busy_machine():
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.count("the timing is UNRELIABLE (other processes used ") == 2
    assert "times as fast" not in finished.stdout
    sidecars = [read_sidecar(path.with_suffix("")) for path in workplace.engines.glob("*/*.*.*.json")]
    verdicts = [sidecar.verdict for sidecar in sidecars if sidecar.verdict]
    assert len(verdicts) == 2
    for verdict in verdicts:
        assert verdict.unreliable_reasons[0].startswith("other processes used ")
        for entry in verdict.candidates:
            assert entry.timing is not None
            assert entry.timing.latency_ms_p50 > 0
            assert entry.timing.speedup is entry.timing.speedup_interval is None


def test_without_timing_a_verdict_stays_as_it_is(workplace: Workplace) -> None:
    """As containers start: an engine that is new is not timed, one that was timed keeps its verdict."""
    first = json.loads(workplace.build("--int8", "--no-timing", "--json").stdout)
    for engine in first:
        (candidate,) = engine["verdict"]["candidates"]
        assert (candidate["precision"], candidate["timing"]) == ("int8", None)
        assert candidate["accuracy"]["images"] == 320
    timed = json.loads(workplace.build("--int8", "--json").stdout)
    assert all(engine["verdict"]["candidates"][1]["timing"] for engine in timed)
    again = json.loads(workplace.build("--int8", "--no-timing", "--json").stdout)
    assert [engine["verdict"] for engine in again] == [engine["verdict"] for engine in timed]
    refused = workplace.build("--auto", "--no-timing")
    assert (refused.status, "--auto chooses by timing" in refused.error_line) == (WRONG_USAGE, True)


def test_int8_from_images_calibrates_first(workplace: Workplace) -> None:
    without_int8(workplace.bundle)
    outcome = workplace.build("--int8")
    assert outcome.status == WRONG_USAGE
    assert f"run ccr-deploy calibrate {workplace.bundle} --images DIR" in outcome.error_line
    outcome = workplace.build("--int8", "--images", workplace.images, "--stage", "classifier", "--json")
    (engine,) = json.loads(outcome.stdout)
    assert engine["key"]["precision"] == "int8"
    assert Bundle.open(workplace.bundle).has_precision("int8")


def test_auto_needs_an_accuracy_record(workplace: Workplace) -> None:
    path = workplace.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["calibration"]["accuracies"] = []
    path.write_text(json.dumps(manifest))
    outcome = workplace.build("--auto")
    assert outcome.status == WRONG_USAGE
    assert "has no record of accuracy" in outcome.error_line
    outcome = workplace.build("--int8")
    assert "INT8 accuracy: not recorded in the bundle" in outcome.stdout


def test_a_precision_that_the_backend_does_not_support(workplace: Workplace) -> None:
    outcome = workplace.build("--bf16", target="cpu")
    assert outcome.status == BROKE
    assert "ONNX Runtime does not support BF16 on a CPU" in outcome.error_line
    outcome = workplace.build("--int8", target="pytorch")
    assert "the PyTorch reference does not support" in outcome.error_line


def test_no_images_and_no_table(workplace: Workplace) -> None:
    outcome = run("calibrate", workplace.bundle)
    assert outcome.status == WRONG_USAGE
    assert f"run ccr-deploy calibrate {workplace.bundle} --images DIR" in " ".join(outcome.stderr.split())


def test_fewer_images_than_samples(workplace: Workplace) -> None:
    outcome = run("calibrate", workplace.bundle, "--images", workplace.images, "--samples", 257)
    assert outcome.status == BROKE
    assert "has 256 images, 257 are needed: add images, or use --samples 256" in outcome.error_line


def broken_images(workplace: Workplace, folder: Path, count: int) -> Path:
    shutil.copytree(workplace.images, folder)
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:100])
    return folder


def test_a_few_broken_images_are_named_counted_and_left_out(workplace: Workplace, tmp_path: Path) -> None:
    folder = broken_images(workplace, tmp_path / "broken", 7)
    outcome = run(
        "calibrate", workplace.bundle, "--images", folder, "--samples", 256, "--json", "--method", "minmax"
    )
    assert outcome.status == 0
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"ccr-deploy: skipped: {folder}")
    assert lines[-1] == "ccr-deploy: skipped 2 more images"
    table = json.loads(next(workplace.bundle.glob("calibration.*.json")).read_text())
    assert table["image_count"] == 249


def test_many_broken_images_are_an_error(workplace: Workplace, tmp_path: Path) -> None:
    folder = broken_images(workplace, tmp_path / "broken", 30)
    outcome = run("calibrate", workplace.bundle, "--images", folder, "--samples", 256)
    assert outcome.status == BROKE
    assert "13 of 256 images cannot be read, more than 5 %" in outcome.error_line


def test_another_models_table(workplace: Workplace, tiny_bundle: Bundle, tmp_path: Path) -> None:
    table = json.loads(next(workplace.bundle.glob("calibration.*.json")).read_text())
    table["graph_hashes"]["encoder"] = "0" * 64
    (tmp_path / "ranges.json").write_text(json.dumps(table))
    outcome = run("calibrate", workplace.bundle, "--table", tmp_path / "ranges.json")
    assert outcome.status == BROKE
    assert "ranges.json: field graph_hashes.encoder: 000000000000" in outcome.error_line
    outcome = run("calibrate", tiny_bundle.path, "--table", tmp_path / "ranges.json")
    assert outcome.status == WRONG_USAGE
    assert "has no FP16 graphs" in outcome.error_line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_ver', "not JSON, perhaps truncated"),
        ('{"schema_version": 7}', "schema version 7"),
        ('{"schema_version": 1}', "field created_by"),
    ],
)
def test_a_table_that_cannot_be_read(workplace: Workplace, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ranges.json").write_text(text)
    outcome = run("calibrate", workplace.bundle, "--table", tmp_path / "ranges.json")
    assert outcome.status == BROKE
    assert f"{tmp_path / 'ranges.json'}: {message}" in outcome.error_line


def test_options_that_contradict_each_other(workplace: Workplace) -> None:
    outcome = run("calibrate", workplace.bundle, "--table", "x.json", "--images", workplace.images)
    assert outcome.status == WRONG_USAGE
    assert "--table already contains the ranges" in outcome.stderr
    outcome = run("calibrate", workplace.bundle, "--table", "x.json", "--method", "entropy")
    assert outcome.status == WRONG_USAGE


def test_a_recipe_is_followed(workplace: Workplace, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'samples = 16\nmethod = "minmax"\nkeep_high_precision = ["stem"]\nheld_out_samples = 8\n'
    )
    outcome = run("calibrate", workplace.bundle, "--images", workplace.images, "--recipe", recipe, "--json")
    calibration = json.loads(outcome.stdout)["calibration"]
    assert calibration["high_precision"] == ["stem"]
    assert calibration["accuracies"][0]["images"] == 8
    recipe.write_text("sample = 16\n")
    outcome = run("calibrate", workplace.bundle, "--images", workplace.images, "--recipe", recipe)
    assert (outcome.status, outcome.error_line) == (
        WRONG_USAGE,
        f"ccr-deploy: error: {recipe}: field sample: unknown field",
    )


def test_without_model_optimizer(
    workplace: Workplace, tiny_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.onnx.autocast", None)
    outcome = run("calibrate", workplace.bundle, "--images", workplace.images)
    assert outcome.status == BROKE
    assert "pip install 'ccr-deploy[precision]'" in outcome.error_line
    outcome = run("export", "--checkpoint", tiny_checkpoint_file, tmp_path / "b")
    assert outcome.status == WRONG_USAGE
    assert "or export only FP32 graphs with --no-fp16" in outcome.error_line
    assert not (tmp_path / "b").exists()
    outcome = run("export", "--checkpoint", tiny_checkpoint_file, "--no-fp16", tmp_path / "b")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert {graph.precision for graph in Bundle.open(tmp_path / "b").manifest.graphs} == {"fp32"}


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_calibration_leaves_the_bundle_as_it_was(
    workplace: Workplace, sent: signal.Signals, status: int
) -> None:
    before = {path.name: path.read_bytes() for path in workplace.bundle.iterdir()}
    arguments = ["calibrate", str(workplace.bundle), "--images", str(workplace.images), "--samples", "64"]
    command = [sys.executable, "-c", AT_A_IMAGE, str(int(sent)), *arguments]
    with hearing_ctrl_c():
        finished = subprocess.run(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False
        )
    assert finished.returncode == status, finished.stderr
    assert {path.name: path.read_bytes() for path in workplace.bundle.iterdir()} == before
