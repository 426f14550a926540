"""The likeliest mistakes of a new user get one line that solves them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.cli_runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

WRONG_USAGE = 2


@pytest.fixture
def folder(
    tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with ./bundle, its engines, photos and a state dict."""
    shutil.copytree(tiny_bundle.path, tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    torch.save({"encoder.stem.weight": torch.zeros(1)}, tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCR_DEPLOY_ENGINES", str(built_store.path))
    monkeypatch.delenv("CCR_DEPLOY_BUNDLE", raising=False)
    return tmp_path


def refusal(*arguments: object) -> str:
    """Return the last line of a command that is refused as wrong usage."""
    outcome = run(*arguments)
    assert (outcome.status, "Traceback" in outcome.stderr) == (WRONG_USAGE, False)
    return outcome.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("typed", ["bild-engine", "build", "buildengine"])
def test_a_misspelled_command_is_suggested(typed: str) -> None:
    assert f"unknown command {typed!r}: did you mean build-engine?" in refusal(typed)


def test_an_unknown_command_lists_all_commands() -> None:
    assert "unknown command 'xyz': choose from describe, export, " in refusal("xyz")


def test_a_misspelled_option_is_suggested() -> None:
    assert "--target" in refusal("verify", "--taget", "cpu")


def test_a_missing_format_lists_the_formats_in_one_line() -> None:
    assert refusal("package", "--output", "x").endswith("Choose from: triton, kubernetes")


def test_a_misspelled_target_is_suggested(folder: Path) -> None:
    line = refusal("build-engine", "--target", "cpu-openvin")
    assert "unknown target 'cpu-openvin': did you mean cpu-openvino? (choose from cpu, " in line


def test_a_misspelled_preset_is_suggested() -> None:
    assert "unknown preset 'dmo': did you mean demo?" in refusal("describe", "--preset", "dmo")


def test_a_misspelled_gate_is_suggested(folder: Path) -> None:
    assert "unknown gate 'min-cosin': did you mean min-cosine?" in refusal("verify", "--gate", "min-cosin=1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "model.pt"),
        ("build-engine", "model.pt"),
        ("calibrate", "model.pt", "--images", "photos"),
        ("classify", "photos", "--bundle", "model.pt"),
    ],
)
def test_a_checkpoint_in_place_of_a_bundle(arguments: tuple[str, ...], folder: Path) -> None:
    assert refusal(*arguments).endswith(
        "model.pt: is a file, not a bundle: to export a checkpoint, "
        "run ccr-deploy export --checkpoint model.pt"
    )


@pytest.mark.parametrize("command", ["export", "describe"])
def test_a_bundle_in_place_of_a_checkpoint(command: str, folder: Path) -> None:
    assert "bundle: is a bundle, not a checkpoint" in refusal(command, "--checkpoint", "bundle")
    assert "photos: is a folder, not a checkpoint" in refusal(command, "--checkpoint", "photos")


def test_a_checkpoint_without_its_option() -> None:
    assert refusal("export", "model.pt").endswith("run ccr-deploy export --checkpoint model.pt")
    assert refusal("export").endswith("run ccr-deploy export --checkpoint FILE")


def test_a_state_dict_without_a_preset(folder: Path) -> None:
    assert "--preset" in refusal("export", "--checkpoint", "model.pt", "new")


def test_int8_without_a_calibration(folder: Path) -> None:
    assert "run ccr-deploy calibrate bundle --images DIR" in refusal("build-engine", "--int8")


def test_verify_before_build_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCR_DEPLOY_ENGINES", str(folder / "new-engines"))
    assert "run ccr-deploy build-engine bundle --target cpu" in refusal("verify")


def test_no_bundle_yet(folder: Path) -> None:
    assert "ccr-deploy export --checkpoint FILE none" in refusal("verify", "none")


@pytest.mark.parametrize("output", ["new.ccr", "old.ccr"])
def test_several_images_into_one_payload_file(output: str, folder: Path) -> None:
    (folder / "old.ccr").touch()
    assert refusal("encode", "photos", "-o", output).endswith(
        f"--output {output}: is one file: several images or a video need a folder"
    )
    assert not (folder / "new.ccr").exists()


def test_an_image_is_inspected_as_an_engine(folder: Path) -> None:
    outcome = run("inspect", "photos/0.png")
    assert outcome.status == 3
    assert "photos/0.png: neither a payload nor an engine" in outcome.error_line
    assert "photos: is a folder" in refusal("inspect", "photos")


def test_a_port_that_is_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # In a separate process, because KServe's SDK and Triton's client, which other tests import, exclude
        # each other.
        command = [sys.executable, "-m", "ccr_deploy", "serve", "--http-port", str(port), "--grpc-port", "0"]
        served = subprocess.run(command, capture_output=True, text=True, check=False)
    assert served.returncode == 3
    assert served.stderr == (
        f"ccr-deploy: error: 127.0.0.1:{port}: cannot listen (Address already in use): "
        "choose another port with --http-port\n"
    )


def test_no_arguments_show_the_help() -> None:
    outcome = run()
    assert outcome.status == WRONG_USAGE
    assert "\nCommands:\n  describe " in outcome.stdout + outcome.stderr


def test_a_file_in_place_of_an_image_folder(folder: Path) -> None:
    outcome = run("verify", "--images", folder / "photos" / "0.png", "--target", "cpu")
    assert "0.png: is a file: give a folder of images" in outcome.error_line


def test_an_image_in_place_of_a_checkpoint(folder: Path) -> None:
    outcome = run("export", "--checkpoint", folder / "photos" / "0.png")
    assert "0.png: cannot be read as a PyTorch checkpoint (" in outcome.error_line
    assert outcome.error_line.endswith("): give a complete file that torch.save wrote")
