"""Shells complete the command line after they have loaded the script of ``ccr-deploy completion``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ccr_deploy.cli.completion import SHELLS
from tests.support.cli_runner import run
from tests.support.terminal import on_terminal

COMPLETED = [
    ("ccr-deploy bench", "benchmark"),
    ("ccr-deploy calibrate --sens", "--sensitivity"),
    ("ccr-deploy verify --target jetson-t", "jetson-thor"),
    ("ccr-deploy export --preset ccr-b", "ccr-baseline"),
    ("ccr-deploy export --schedule layer", "layer-major"),
    ("ccr-deploy export --checkpoint train", "trained.pt"),
    ("ccr-deploy export --key-map pyt", "pytorch-image-comp-rnn"),
    ("ccr-deploy export --key-map my", "mytarget.toml"),
    ("ccr-deploy verify --target my", "mytarget.toml"),
    ("ccr-deploy verify bund", "bundle/"),  # and not bundle.zip
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with the completion scripts of all shells."""
    for shell in SHELLS:
        (tmp_path / f"script.{shell}").write_text(run("completion", shell).stdout)
    (tmp_path / "trained.pt").touch()
    (tmp_path / "mytarget.toml").touch()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle.zip").touch()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8"}


def shell_path(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_bash_completes(typed: str, completed: str, home: Path) -> None:
    command = [shell_path("bash"), "--norc", "--noprofile", "-i"]
    with on_terminal(command, environment(home)) as terminal:
        terminal.type(f"cd {home}; . ./script.bash; echo 're''ady'\n")
        terminal.wait_for("ready")
        terminal.type(f"{typed}\t")
        terminal.wait_for(completed)


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_zsh_completes(typed: str, completed: str, home: Path) -> None:
    with on_terminal([shell_path("zsh"), "-f", "-i"], environment(home)) as terminal:
        terminal.type(f"cd {home}; autoload -Uz compinit; compinit -u; . ./script.zsh; echo 're''ady'\n")
        terminal.wait_for("ready")
        terminal.type(f"{typed}\t")
        terminal.wait_for(completed)


@pytest.mark.parametrize(("typed", "completed"), COMPLETED)
def test_fish_completes(typed: str, completed: str, home: Path) -> None:
    program = f"cd {home}; source script.fish; complete -C '{typed}'"
    command = [shell_path("fish"), "--no-config", "-c", program]
    found = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=True)
    assert completed in [line.split("\t")[0] for line in found.stdout.splitlines()]


def test_completing_imports_no_heavy_package() -> None:
    program = (
        "import sys\n"
        "from ccr_deploy.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'onnx', 'onnxruntime', 'onnx_ir', 'openvino', 'matplotlib', 'modelopt'}\n"
        "    print('heavy:', *sorted(heavy & set(sys.modules)))\n"
    )
    for words in ("ccr-deploy verify --target ", "ccr-deploy export --preset "):
        asked = {"_CCR_DEPLOY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
        found = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **asked},
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(found.stdout.splitlines()) > 3
        assert found.stdout.endswith("heavy:\n")


def test_a_shell_without_a_script_is_wrong_usage() -> None:
    outcome = run("completion", "powershell")
    assert outcome.status == 2
    assert "bash" in outcome.stderr
