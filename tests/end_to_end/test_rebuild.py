"""`verify --rebuild`: several builds of the same engines, compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ccr_deploy.bundle.reader import sha256_of
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

WRONG_USAGE = 2


def rebuilt(bundle: Bundle, store: EngineStore, *options: object):
    return run("verify", bundle.path, "--engines", store.path, "--target", "cpu", *options)


def contents(store: EngineStore) -> dict[Path, str]:
    return {path: sha256_of(path) for path in store.path.rglob("*") if path.is_file()}


def test_the_installed_engines_and_n_builds_are_compared(
    tiny_bundle: Bundle, built_store: EngineStore
) -> None:
    rebuilt(tiny_bundle, built_store, "--samples", 1)  # builds the reference, which the store keeps
    before = contents(built_store)
    outcome = rebuilt(tiny_bundle, built_store, "--rebuild", 2, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert contents(built_store) == before
    report = json.loads(outcome.stdout)
    assert [build["name"] for build in report["builds"]] == ["installed", "build 1", "build 2"]
    (encoder,) = built_store.path.glob("*/encoder.fp32.onnx")
    assert report["builds"][0]["engine_sha256"]["encoder"] == sha256_of(encoder)
    assert report["image_count"] == len(tiny_bundle.manifest.samples)
    assert report["bits"] == 8 * tiny_bundle.manifest.contract.code_bytes * report["image_count"]
    for build in report["builds"]:
        assert build["latency_ms_p50"] > 0
        assert build["flipped_bits"] == build["changed_answers"] == build["bits_unlike_installed"] == 0
    assert report["bits_that_vary"] == report["answers_that_vary"] == 0


def test_a_device_without_pytorch_compares_with_a_golden_file(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path
) -> None:
    golden = tmp_path / "tiny.golden"
    run("verify", tiny_bundle.path, "--export-golden", golden, "--engines", built_store.path)
    outcome = rebuilt(tiny_bundle, built_store, "--rebuild", 2, "--golden", golden)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "flipped (golden file)" in outcome.stdout
    assert outcome.stdout.count("build ") >= 2
    assert "golden file" in outcome.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rebuild", 1), "--rebuild"),
        (("--rebuild", 2, "--gate", "min-cosine=0.5"), "--rebuild does not accept --gate"),
        (("--rebuild", 2, "--report", "report"), "--rebuild does not accept --report"),
        (("--rebuild", 2, "--export-golden", "a.golden"), "--rebuild"),
    ],
)
def test_wrong_options_are_refused(
    tiny_bundle: Bundle, built_store: EngineStore, options: tuple[object, ...], message: str
) -> None:
    outcome = rebuilt(tiny_bundle, built_store, *options)
    assert outcome.status == WRONG_USAGE
    assert message in outcome.stderr


def test_engines_that_were_not_built_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    where = ("--engines", tmp_path / "empty", "--target", "cpu")
    outcome = run("verify", tiny_bundle.path, *where, "--rebuild", 2)
    assert outcome.status == WRONG_USAGE
    assert "run ccr-deploy build-engine" in outcome.error_line
