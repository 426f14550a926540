"""A golden file, written on a workstation and verified on a device without PyTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace as replace_field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from ccr_deploy.codec.contract import pack_code
from ccr_deploy.verification.golden import read_golden, write_golden
from ccr_deploy.verification.reference import as_margins
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

GATE_FAILED, WRONG_USAGE, BROKE = 1, 2, 3
WITHOUT = """
import sys
for name in ("torch", "torchvision", "onnx", "onnx_ir", "modelopt", "safetensors"):
    sys.modules[name] = None  # import then fails, as if it were not installed
from ccr_deploy.cli import main
main()
"""


@pytest.fixture(scope="module")
def golden_file(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("golden") / "tiny.golden"
    written = run("verify", tiny_bundle.path, "--export-golden", path, "--engines", built_store.path)
    assert (written.status, written.stderr) == (0, "")
    assert "verify BUNDLE --golden tiny.golden" in written.stdout
    return path


@pytest.fixture
def verify(tiny_bundle: Bundle, built_store: EngineStore):
    def verified(golden: Path, *options: object, bundle: Path | None = None):
        where = ("--engines", built_store.path, "--target", "cpu")
        return run("verify", bundle or tiny_bundle.path, "--golden", golden, *where, *options)

    return verified


def test_a_device_verifies_without_pytorch_onnx_and_images(
    golden_file: Path, tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    device.mkdir()
    shutil.copy(tiny_bundle.path / "manifest.json", device)
    command = [
        *(sys.executable, "-c", WITHOUT, "verify", str(device), "--golden", str(golden_file), "--json"),
        *("--engines", str(built_store.path), "--target", "cpu", "--fp32"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert {entry["level"] for entry in (*report["codes"], *report["logits"], *report["gates"])} == {"engine"}
    assert {entry["stage"] for entry in report["logits"]} == {"classifier", "chain", "baseline"}
    assert all(gate["passed"] for gate in report["gates"])
    assert report["codes"][0]["equal_payloads"] == report["image_count"] > 0


def test_it_finds_what_verify_finds_with_pytorch(golden_file, verify, tiny_bundle, built_store) -> None:
    with_golden = json.loads(verify(golden_file, "--json").stdout)
    where = ("--engines", built_store.path, "--target", "cpu", "--json")
    with_pytorch = json.loads(run("verify", tiny_bundle.path, *where).stdout)
    for part in ("codes", "logits", "gates", "accuracies"):
        engine = [
            entry
            for entry in with_pytorch[part]
            if "graph" not in {entry.get("level", entry.get("chain")), entry.get("against")}
        ]
        assert with_golden[part] == engine


def test_the_report_shows_only_the_engine(golden_file, verify, tmp_path) -> None:
    outcome = verify(golden_file, "--report", tmp_path / "report")
    assert (outcome.status, outcome.stderr) == (0, "")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "golden file" in page


def test_flipped_bits_fail_a_gate(golden_file, verify, tmp_path) -> None:
    golden = read_golden(golden_file)
    margins = golden.margins.copy()
    margins[:, ::20] *= -1
    write_golden(
        tmp_path / "flipped.golden", replace_field(golden, margins=margins, codes=pack_code(margins))
    )
    outcome = verify(tmp_path / "flipped.golden")
    assert outcome.status == GATE_FAILED
    assert "engine unexplained flips" in outcome.error_line


def test_other_logits_fail_a_gate(golden_file, verify, tmp_path) -> None:
    golden = read_golden(golden_file)
    logits = {stage: np.roll(values, 1, axis=1) for stage, values in golden.logits.items()}
    write_golden(tmp_path / "rolled.golden", replace_field(golden, logits=logits))
    outcome = verify(tmp_path / "rolled.golden")
    assert outcome.status == GATE_FAILED
    assert "engine classifier cosine" in outcome.error_line


def test_a_recorded_limit_is_the_devices_limit(
    golden_file, tiny_bundle, built_store, verify, tmp_path
) -> None:
    strict = tmp_path / "strict.golden"
    options = ("--gate", "min-same-top1-percent=101", "--engines", built_store.path)
    assert run("verify", tiny_bundle.path, "--export-golden", strict, *options).status == 0
    assert "engine chain same top-1 (%)" in verify(strict).error_line
    assert verify(strict, "--gate", "min-same-top1-percent=99").status == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda record: replace(record, weights_sha256="0" * 64),
            f"weights_sha256 is {'0' * 64}, the bundle's is ",
        ),
        (
            lambda record: with_contract(record, iterations=7),
            "golden file of another model: iterations is 7, the bundle's is 3",
        ),
        (
            lambda record: with_contract(
                record, preprocessing=replace(record.contract.preprocessing, resize_filter="box")
            ),
            "preprocessing.resize_filter is box, the bundle's is bilinear",
        ),
        (
            lambda record: replace(record, limits={**record.limits, "fp32": {}}),
            "other.golden: no gate limits for FP32 engines: ",
        ),
    ],
)
def test_a_golden_file_of_another_model_is_refused_with_the_field(
    change, message, golden_file, verify, tmp_path
) -> None:
    golden = read_golden(golden_file)
    write_golden(tmp_path / "other.golden", replace_field(golden, record=change(golden.record)))
    outcome = verify(tmp_path / "other.golden")
    assert outcome.status == BROKE
    assert message in outcome.error_line
    assert "--export-golden" in outcome.error_line


def test_more_classes_than_the_bundle_has_are_refused(golden_file, verify, tmp_path) -> None:
    golden = read_golden(golden_file)
    logits = {**golden.logits, "classifier": np.pad(golden.logits["classifier"], ((0, 0), (0, 1)))}
    record = replace(golden.record, classes=golden.record.classes + 1)
    write_golden(tmp_path / "more.golden", replace_field(golden, record=record, logits=logits))
    outcome = verify(tmp_path / "more.golden")
    assert outcome.status == BROKE
    assert f"classes is {record.classes}, the bundle's is {record.classes - 1}" in outcome.error_line


@pytest.mark.parametrize("limit", ["inf", "nan"])
def test_a_limit_that_is_not_finite_is_not_recorded(tiny_bundle, built_store, tmp_path, limit) -> None:
    options = ("--gate", f"max_flipped_percent={limit}", "--engines", built_store.path)
    outcome = run("verify", tiny_bundle.path, "--export-golden", tmp_path / "x", *options)
    assert outcome.status == WRONG_USAGE
    assert f"gate max-flipped-percent: a golden file cannot hold the limit {limit}" in outcome.error_line


def test_a_truncated_golden_file_is_refused(golden_file, verify, tmp_path) -> None:
    (tmp_path / "cut.golden").write_bytes(golden_file.read_bytes()[:-30])
    outcome = verify(tmp_path / "cut.golden")
    assert outcome.status == BROKE
    assert "cut.golden: not a golden file, or damaged" in outcome.error_line


def test_options_that_exclude_each_other_are_refused(golden_file, verify, tmp_path) -> None:
    assert verify(golden_file, "--samples", 3).status == WRONG_USAGE
    assert verify(golden_file, "--export-golden", tmp_path / "x").status == WRONG_USAGE
    outcome = run("verify", tmp_path, "--export-golden", tmp_path / "x", "--target", "cpu")
    assert outcome.status == WRONG_USAGE
    assert "--export-golden does not accept --target" in outcome.stderr


def test_too_many_samples_are_refused(tiny_bundle, built_store, tmp_path) -> None:
    options = ("--samples", 4097, "--engines", built_store.path)
    outcome = run("verify", tiny_bundle.path, "--export-golden", tmp_path / "x", *options)
    assert outcome.status == WRONG_USAGE
    assert "--samples 4097: a golden file holds up to 4096 images of this size" in outcome.error_line
    assert not (tmp_path / "x").exists()


def test_samples_are_evenly_spaced(tiny_bundle, built_store, tmp_path) -> None:
    path = tmp_path / "two.golden"
    options = ("--samples", 2, "--engines", built_store.path, "--json")
    written = json.loads(run("verify", tiny_bundle.path, "--export-golden", path, *options).stdout)
    names = [sample.file.name for sample in tiny_bundle.manifest.samples]
    assert written["image_names"] == [names[0], names[-1]]
    assert written["images"] == f"the bundle's samples, 2 of {len(names)}"


def test_margins_keep_the_bits_of_the_smallest_activations() -> None:
    activations = np.array([[-1e-12, 0.0, 1e-12, -1.0, 1e9]], np.float32)
    assert (pack_code(as_margins(activations)) == pack_code(activations)).all()


def with_contract(record, **changed: object):
    contract = replace(record.contract, **changed)
    return replace(record, contract=contract, contract_id=contract.contract_id)


@pytest.fixture
def results(golden_file, verify, tmp_path) -> list[Path]:
    """What two devices printed for the same golden file."""
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        path.write_text(verify(golden_file, "--json").stdout)
    return paths


def changed(path: Path, change) -> None:
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def test_devices_that_answer_alike_agree(results) -> None:
    outcome = run("verify", "--compare", *results, "--json")
    assert outcome.status == 0
    for device in json.loads(outcome.stdout):
        assert device["agrees"]
        assert device["equal_payloads"] == device["same_top1"] == device["images"] > 0


def test_a_device_with_another_class_is_named_with_the_image(results) -> None:
    def change(report) -> None:
        answer = report["golden"]["answers"][0]
        answer |= {"top1": answer["top1"] + 1, "payload_sha256": "0" * 64}

    changed(results[1], change)
    outcome = run("verify", "--compare", *results)
    assert outcome.status == GATE_FAILED
    assert "1 of 2 results do not agree" in outcome.error_line
    assert "two.json" in outcome.error_line
    image = json.loads(results[0].read_text())["golden"]["answers"][0]["image"]
    _, device = json.loads(run("verify", "--compare", *results, "--json").stdout)
    assert device["other_class"] == [image]


def test_a_device_whose_gates_fail_does_not_agree(results) -> None:
    changed(results[0], lambda report: report["gates"][0].update(passed=False))
    outcome = run("verify", "--compare", *results)
    assert outcome.status == GATE_FAILED
    assert "one.json" in outcome.error_line


def test_results_of_two_golden_files_are_not_compared(results) -> None:
    changed(results[1], lambda report: report["golden"].update(sha256="0" * 64))
    outcome = run("verify", "--compare", *results)
    assert outcome.status == BROKE
    assert "two.json: result of another golden file: its SHA-256 begins 000000000000" in outcome.error_line


def test_a_result_that_lacks_an_image_is_refused(results) -> None:
    changed(results[1], lambda report: report["golden"]["answers"].pop())
    outcome = run("verify", "--compare", *results)
    assert outcome.status == BROKE
    assert "two.json: damaged: its images are not those of " in outcome.error_line


@pytest.mark.parametrize("index", [0, -1])
def test_nan_of_a_device_is_shown(results, index) -> None:
    changed(results[1], lambda report: report["golden"]["answers"][index].update(probability=float("nan")))
    _, device = json.loads(run("verify", "--compare", *results, "--json").stdout)
    assert device["max_probability_difference"] != device["max_probability_difference"]


def test_a_result_without_a_golden_file_is_refused(results) -> None:
    changed(results[1], lambda report: report.update(golden=None))
    outcome = run("verify", "--compare", *results)
    assert outcome.status == BROKE
    assert "two.json: result of verify without --golden: " in outcome.error_line


def test_compare_takes_two_results_and_no_options(results) -> None:
    assert run("verify", "--compare", results[0]).status == WRONG_USAGE
    assert run("verify", "--compare", *results, "--fp16").status == WRONG_USAGE
    assert "got 2 bundles, expected one" in run("verify", *results).stderr
