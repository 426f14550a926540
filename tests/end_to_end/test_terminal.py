"""Output on a terminal: colours, unless they are disabled; a pipe gets plain text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.support.terminal import on_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.bundle.reader import Bundle
    from ccr_deploy.engines.store import EngineStore

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|38;|48;)[0-9;]*m")


@pytest.fixture
def command(tiny_bundle: Bundle, built_store: EngineStore, tmp_path: Path) -> list[str]:
    """A command that shows an image, if it may."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    options = ["--bundle", str(tiny_bundle.path), "--engines", str(built_store.path)]
    return [sys.executable, "-m", "ccr_deploy", "classify", str(tmp_path / "photo.png"), *options]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    return {**kept, "TERM": "xterm-256color", **changes}


def test_a_terminal_has_colours(command: list[str]) -> None:
    with on_terminal(command, environment()) as terminal:
        assert terminal.wait_until_end() == 0
    assert COLOUR.search(terminal.shown)
    assert "▀" in terminal.shown


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_switched_off(changes: dict[str, str], command: list[str]) -> None:
    with on_terminal(command, environment(**changes)) as terminal:
        assert terminal.wait_until_end() == 0
    assert not COLOUR.search(terminal.shown)
    assert "▀" not in terminal.shown
    assert "Classification" in terminal.shown


def test_a_pipe_has_no_colours_unless_they_are_forced(command: list[str]) -> None:
    plain = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "\x1b" not in plain.stdout + plain.stderr
    forced = subprocess.run(
        command, env=environment(FORCE_COLOR="1"), capture_output=True, text=True, check=True
    )
    assert COLOUR.search(forced.stdout)
