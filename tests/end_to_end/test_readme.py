"""Whoever types the README's commands sees what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from benchmarks.readme import DOCUMENTS, filled, tables
from ccr_deploy.cli import cli
from ccr_deploy.core.precisions import PRECISIONS
from ccr_deploy.verification.gates import GATES
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from ccr_deploy.models.checkpoint import Checkpoint

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def user_folder(tiny_checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README's user has: model.pt, train/, val/ and photo.jpg."""
    (tmp_path / "model.pt").write_bytes(tiny_checkpoint_file.read_bytes())
    generator = np.random.default_rng(2)
    for name in ("apple", "egg"):
        for folder, count in (("val", 1), ("train", 128)):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
    Image.fromarray(generator.integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCR_DEPLOY_ENGINES", str(tmp_path / "engines"))
    return tmp_path


def test_the_commands_and_python_of_the_readme_run(user_folder: Path, tiny_checkpoint: Checkpoint) -> None:
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 16
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ccr-deploy"
        outcome = run(*arguments, *(("--rounds", "2") if arguments[0] == "benchmark" else ()))
        assert (outcome.status, outcome.stderr) == (0, ""), command
    (program_text,) = blocks("python")
    finished = subprocess.run(
        [sys.executable, "-c", program_text], cwd=user_folder, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert any(name in finished.stdout for name in tiny_checkpoint.class_names)


def test_the_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| [A-Za-z]", README, flags=re.MULTILINE)
    assert listed == list(cli.commands)


def test_the_readme_and_the_help_state_the_gates_as_they_are() -> None:
    shown = run("verify", "--help").stdout
    for gate in GATES:
        expected = [gate.limit_text(precision) for precision in PRECISIONS]
        (stated,) = re.findall(rf"^\| `{gate.name}`: {gate.help} \| (.*) \|$", README, flags=re.MULTILINE)
        assert stated.split(" | ") == expected
        (helped,) = re.findall(rf"^ +{gate.name} +(.*?) +{gate.help}$", shown, flags=re.MULTILINE)
        assert helped.split() == expected


def test_every_file_that_a_document_links_to_exists() -> None:
    count = 0
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
            count += 1
    assert count > 10


def test_the_documents_tables_are_the_committed_results() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert [filled(text) for text in texts] == texts
    assert all(any(table in text for text in texts) for table in tables().values())
