"""Hostile files: commands refuse them in one line, without waiting, and escape control characters."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.core.records import to_builtins
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.sidecar import sidecar_path
from ccr_deploy.engines.store import EngineStore
from tests.support.cli_runner import run
from tests.unit.data.test_images import noise

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

BROKE, WRONG_USAGE = 3, 2
ESCAPE = "\x1b[31m"
EVIL = f"{ESCAPE}egg\u202e\nccr-deploy: error: <script>"
SHOWN = "\\x1b[31megg\\u202e\\nccr-deploy: error: <script>"


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def engines(own_store: EngineStore) -> Path:
    """A store with that bundle's engines that a test may damage."""
    return own_store.path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(noise(32, 48)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def own_format(checkpoint: Checkpoint, **changes: object) -> dict[str, object]:
    return {
        "format": "ccr-deploy checkpoint",
        "version": 2,
        "config": to_builtins(checkpoint.config),
        "trained_iterations": list(checkpoint.trained_iterations),
        "preprocessing": to_builtins(checkpoint.preprocessing),
        "class_names": list(checkpoint.class_names),
        "metrics": {},
        "state_dict": dict(checkpoint.state_dict),
        **changes,
    }


NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"top1_percent": NAN}},
        {"preprocessing": {"resize_to_cover": [32, 48], "mean": [NAN, 0, 0]}},
        {"preprocessing": {"resize_to_cover": [32, 48], "std": [1, NAN, 1]}},
    ],
)
def test_a_checkpoint_with_nan_is_not_exported_and_the_old_bundle_stays(
    changes: dict[str, object], bundle: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    before = {path.name: sha256_of(path) for path in bundle.iterdir()}
    torch.save(own_format(tiny_checkpoint, **changes), tmp_path / "nan.pt")
    outcome = run("export", "--checkpoint", tmp_path / "nan.pt", "--no-fp16", bundle)
    assert outcome.status == BROKE
    assert "nan.pt: configuration field" in outcome.error_line
    assert {path.name: sha256_of(path) for path in bundle.iterdir()} == before
    Bundle.open(bundle)


def test_class_names_are_shown_escaped_in_tables_and_reports_and_stay_in_json(
    bundle: Path, engines: Path, image: Path, tmp_path: Path
) -> None:
    edit(bundle / "manifest.json", class_names=[EVIL] * 5)
    use = ("--bundle", bundle, "--engines", engines, "--target", "cpu")
    outcome = run("classify", image, *use)
    assert SHOWN in outcome.stdout
    assert ESCAPE not in outcome.stdout
    outcome = run("classify", image, *use, "--json")
    assert json.loads(outcome.stdout)[0]["answer"] == EVIL
    assert outcome.stdout.isascii()
    report = tmp_path / "report"
    outcome = run("verify", bundle, "--engines", engines, "--target", "cpu", "--json", "--report", report)
    assert json.loads(outcome.stdout)["samples"][0]["answer"] == EVIL
    assert outcome.stdout.isascii()
    for name in ("report.md", "report.html"):
        text = (report / name).read_text()
        assert ESCAPE not in text
        assert "\u202e" not in text
        assert "<script>" not in text


@pytest.mark.parametrize("name", [f"a{ESCAPE}\nccr-deploy: error: b.png", "a\u202e.png", "\udcff.png"])
def test_file_names_are_shown_escaped(name: str, bundle: Path, engines: Path, image: Path) -> None:
    path = image.rename(image.with_name(name))
    use = ("--bundle", bundle, "--engines", engines, "--target", "cpu")
    outcome = run("classify", path, *use)
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.replace("\n", "").isprintable()
    path.write_bytes(b"no image")
    outcome = run("classify", path, *use)
    assert outcome.status == BROKE
    assert outcome.error_line.isprintable()
    assert run("classify", path.with_name(f"none{name}"), *use).error_line.isprintable()


def test_wrong_usage_shows_what_was_typed_escaped() -> None:
    outcome = run("verify", f"--{ESCAPE}\nError: nothing")
    assert outcome.status == WRONG_USAGE
    assert outcome.stderr.replace("\n", "").isprintable()
    assert "\nError: nothing" not in outcome.stderr


def test_field_names_are_shown_escaped(bundle: Path, engines: Path) -> None:
    edit(bundle / "manifest.json", **{EVIL: 1})
    outcome = run("build-engine", bundle, "--engines", engines)
    assert outcome.status == BROKE
    assert SHOWN in outcome.error_line


def test_a_target_s_description_is_shown_escaped(bundle: Path, engines: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('description = "a\\u001b[31m\\nb"\nbackend = "onnxruntime"\n')
    outcome = run("build-engine", bundle, "--engines", engines, "--target", tmp_path / "x.toml")
    assert outcome.status == 0, outcome.stderr
    assert "a\\x1b[31m\\nb" in outcome.stdout


def test_a_traceback_is_shown_escaped(tmp_path: Path) -> None:
    outcome = run("describe", "--checkpoint", tmp_path / f"{ESCAPE}.pt", "-v")
    assert "Traceback" in outcome.stderr
    assert ESCAPE not in outcome.stderr


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    "command", ["classify", "inspect", "describe", "calibrate", "build-engine", "export"]
)
def test_a_path_that_is_not_a_file_is_refused_without_waiting(
    make, command: str, bundle: Path, engines: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    make(path)
    arguments = {
        "classify": ("classify", path, "--bundle", bundle, "--engines", engines, "--target", "cpu"),
        "inspect": ("inspect", path),
        "describe": ("describe", "--checkpoint", path),
        "calibrate": ("calibrate", bundle, "--table", path),
        "build-engine": ("build-engine", bundle, "--target", path),
        "export": ("export", "--checkpoint", path, tmp_path / "new"),
    }
    outcome = run(*arguments[command])
    assert outcome.status in {BROKE, WRONG_USAGE}
    assert "x.toml" in outcome.error_line
    assert "unexpected" not in outcome.error_line


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"target": "\\ud800"}', "null", '{"target": "cpu", "stages": {"encoder": true}}'],
)
def test_a_hostile_record_of_the_last_build_is_an_expected_error(
    text: str, bundle: Path, engines: Path, image: Path
) -> None:
    next(engines.glob("chosen.*.json")).write_text(text)
    outcome = run("classify", image, "--bundle", bundle, "--engines", engines, "--target", "cpu")
    assert outcome.status != 0
    assert "unexpected" not in outcome.error_line


def test_a_hostile_sidecar_is_shown_escaped_and_stays_json(bundle: Path, engines: Path) -> None:
    engine = EngineFactory(Bundle.open(bundle), "cpu", EngineStore(engines)).find("encoder").path
    sidecar = json.loads(sidecar_path(engine).read_text())
    sidecar["origin"]["target"] = "\x9b31m\nx"
    sidecar_path(engine).write_text(json.dumps(sidecar))
    outcome = run("inspect", engine)
    assert "\\x9b31m\\nx" in outcome.stdout
    outcome = run("inspect", engine, "--json")
    assert json.loads(outcome.stdout)["origin"]["target"] == "\x9b31m\nx"
    assert outcome.stdout.isascii()


def test_an_error_of_the_operating_system_is_one_line_with_its_file(bundle: Path, engines: Path) -> None:
    outcome = run("classify", "x" * 300, "--bundle", bundle, "--engines", engines, "--target", "cpu")
    assert outcome.status == BROKE
    assert outcome.error_line.endswith(f"{'x' * 300}: File name too long")
