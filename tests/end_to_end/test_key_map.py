"""``ccr-deploy export --key-map``: what it prints and refuses; nothing is written if it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from tests.support.cli_runner import Outcome, run
from tests.support.other_encoder import other_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

BROKE, WRONG_USAGE = 3, 2
SHIPPED = "pytorch-image-comp-rnn"


@pytest.fixture
def chain(tiny_checkpoint: Checkpoint, tmp_path: Path) -> tuple[object, ...]:
    """The options for a chain in one file under other names, with two tensors of its optimiser."""
    weights = {f"net.{name}": tensor for name, tensor in tiny_checkpoint.state_dict.items()}
    torch.save({**weights, "moment.1": torch.ones(1), "moment.2": torch.ones(1)}, tmp_path / "chain.pth")
    (tmp_path / "own.toml").write_text(
        'schema_version = 1\ndescription = "a test"\n[renames.chain]\n"net." = ""\n'
    )
    return "--checkpoint", tmp_path / "chain.pth", "--key-map", tmp_path / "own.toml"


@pytest.fixture
def encoder(tmp_path: Path) -> tuple[object, ...]:
    """The options for encoder and binarizer of another implementation."""
    options: list[object] = ["--key-map", SHIPPED]
    for name, network in zip(("encoder", "binarizer"), other_encoder(), strict=True):
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
        options += ["--checkpoint", tmp_path / f"{name}.pth"]
    return tuple(options)


def export(tmp_path: Path, *options: object) -> Outcome:
    return run(
        "export", *options, "--image-size", 32, 48, "--schedule", "plain", "--no-fp16", tmp_path / "bundle"
    )


def test_left_over_tensors_are_printed_and_the_result_is_json(
    chain: tuple[object, ...], tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    outcome = export(tmp_path, *chain, "--trained-iterations", "3", "--json")
    assert outcome.status == 0
    assert outcome.error_line == f"ccr-deploy: {chain[1]}: left over: 2 tensors (moment.1, moment.2)"
    manifest = json.loads(outcome.stdout)
    assert manifest["model"]["encoder"]["cell_channels"] == [4, 6, 8]
    assert manifest["model"]["classifier"]["classes"] == tiny_checkpoint.config.classifier.classes
    assert manifest["trained_iterations"] == [3]


def test_an_encoder_alone_is_refused(encoder: tuple[object, ...], tmp_path: Path) -> None:
    outcome = export(tmp_path, *encoder, "--trained-iterations", "8")
    assert outcome.status == WRONG_USAGE
    assert "fine-tune a classifier first, with python -m training finetune" in outcome.error_line
    assert not (tmp_path / "bundle").exists()


def test_options_that_do_not_fit_a_key_map_are_refused(
    chain: tuple[object, ...], encoder: tuple[object, ...], tmp_path: Path
) -> None:
    for options, complaint in (
        (chain, "give --trained-iterations"),
        ((*chain, "--preset", "demo"), "--preset demo: the key map gives the names"),
        ((*chain[:2], "--key-map", "own"), "unknown key map 'own'"),
        ((*chain[:2], "--key-map", tmp_path / "none.toml"), "none.toml: no such file"),
        (encoder[2:], "a second file needs a key map: give --key-map"),
        ((*chain[:2], *encoder[:2]), "renames tensors of 2 files (encoder, binarizer), 1 given"),
    ):
        outcome = export(tmp_path, *options)
        assert outcome.status == WRONG_USAGE, complaint
        assert complaint in outcome.error_line


def test_names_with_control_characters_are_escaped(chain: tuple[object, ...], tmp_path: Path) -> None:
    content = torch.load(tmp_path / "chain.pth")
    torch.save({**content, "\x1b[31mevil\nname": torch.ones(1)}, tmp_path / "chain.pth")
    outcome = export(tmp_path, *chain, "--trained-iterations", "3")
    assert "\\x1b[31mevil\\nname" in outcome.error_line


def test_a_damaged_file_leaves_the_old_bundle(chain: tuple[object, ...], tmp_path: Path) -> None:
    assert export(tmp_path, *chain, "--trained-iterations", "3").status == 0
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()
    path = tmp_path / "chain.pth"
    path.write_bytes(path.read_bytes()[:-100])
    outcome = export(tmp_path, *chain, "--trained-iterations", "3")
    assert outcome.status == BROKE
    assert str(path) in outcome.error_line
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before
