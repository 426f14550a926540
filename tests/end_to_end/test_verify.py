"""``ccr-deploy verify``: every step is compared with PyTorch and with the step before, in every precision."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.core.precisions import PRECISIONS
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.demo import CalibratedDemo

WRONG_USAGE = 2
TARGET = ("--target", "cpu-openvino")


@pytest.fixture(scope="module")
def int8_store(calibrated_demo: CalibratedDemo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("engines")
    built = run("build-engine", calibrated_demo.bundle.path, *TARGET, "--int8", "--engines", folder)
    assert built.status == 0, built.stderr
    return folder


def verify(demo: CalibratedDemo, store: Path, *arguments: object):
    return run("verify", demo.bundle.path, *TARGET, "--engines", store, *arguments)


def test_every_step_is_compared_with_the_first_and_the_one_before(calibrated_demo, int8_store) -> None:
    report = json.loads(
        verify(
            calibrated_demo, int8_store, "--images", calibrated_demo.images, "--samples", 64, "--json"
        ).stdout
    )
    expected = [
        ("fp32-graph", "pytorch"),
        ("graph", "pytorch"),
        ("engine", "pytorch"),
        ("graph", "fp32-graph"),
        ("engine", "graph"),
    ]
    assert [(parity["level"], parity["against"]) for parity in report["codes"]] == expected
    fp32, graph = report["codes"][0], report["codes"][1]
    assert fp32["unexplained_flips"] == 0
    assert graph["flipped_bits"] > fp32["flipped_bits"]
    assert report["codes"][3]["flipped_bits"] > 0
    limits = {gate["level"]: gate["limit"] for gate in report["gates"] if gate["name"] == "min-cosine"}
    assert limits["fp32-graph"] > limits["graph"] == limits["engine"]
    assert {change["level"] for change in report["accuracy_changes"]} == {"fp32-graph", "graph", "engine"}


def test_changed_answers_are_listed_with_their_images(calibrated_demo, int8_store) -> None:
    found = verify(calibrated_demo, int8_store, "--images", calibrated_demo.images, "--json")
    report = json.loads(found.stdout)
    (chain,) = [
        parity
        for parity in report["logits"]
        if (parity["stage"], parity["level"], parity["against"]) == ("chain", "engine", "pytorch")
    ]
    changed = report["changed_answers"]
    assert len(changed) == min(24, chain["images"] - chain["same_top1"])
    for image in changed:
        assert image["answer"] != image["reference"]
        assert image["thumbnail_png_base64"]
        assert (calibrated_demo.images / image["name"]).is_file()


def test_the_matrix_has_every_encoder_with_every_classifier(calibrated_demo, int8_store) -> None:
    arguments = ("--images", calibrated_demo.images, "--samples", 40, "--matrix")
    report = json.loads(verify(calibrated_demo, int8_store, *arguments, "--json").stdout)
    cells = {(cell["encoder"], cell["classifier"]): cell for cell in report["matrix"]}
    assert [*cells] == [(encoder, classifier) for encoder in PRECISIONS for classifier in PRECISIONS]
    (reference,) = [entry for entry in report["accuracies"] if entry["chain"] == "pytorch"]
    fp32 = cells["fp32", "fp32"]
    assert (fp32["same_top1"], fp32["images"]) == (40, 40)
    assert fp32["top1_percent"] == reference["top1_percent"]
    (graph,) = [entry for entry in report["accuracies"] if entry["chain"] == "graph"]
    assert cells["int8", "int8"]["top1_percent"] == graph["top1_percent"]
    shown = verify(calibrated_demo, int8_store, *arguments).stdout
    assert "Encoder and classifier precisions" in shown


def test_without_labels_the_matrix_counts_equal_classes(tiny_bundle, built_store) -> None:
    shown = run("verify", tiny_bundle.path, "--engines", built_store.path, "--target", "cpu", "--matrix")
    assert "classes equal to PyTorch's" in shown.stdout


@pytest.mark.parametrize("option", ["--golden", "--export-golden"])
def test_the_matrix_needs_the_graphs(tiny_bundle, tmp_path, option) -> None:
    outcome = run("verify", tiny_bundle.path, option, tmp_path / "x.golden", "--matrix")
    assert outcome.status == WRONG_USAGE
    assert "--matrix" in outcome.stderr
