"""Every command and program of README.md and of the site is run, or checked if this machine cannot run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.models.key_map import read_key_map
from ccr_deploy.quantization.recipe import read_recipe
from ccr_deploy.targets.schema import load_target
from tests.docs.fences import (
    DOCUMENTS,
    ROOT,
    Fence,
    check_command,
    check_shell,
    fences,
    repository_paths,
)
from tests.docs.reader import TUTORIAL, succeeded
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.reader import Workspace

FENCES = [fence for document in DOCUMENTS for fence in fences(document)]
LANGUAGES = {"console", "sh", "python", "toml", "json", "yaml", "text"}
RUN = [
    document
    for document in DOCUMENTS
    if document != TUTORIAL
    and any(
        fence.language in {"console", "python"} and not fence.not_run and not fence.needs_server
        for fence in fences(document)
    )
]
SERVED = [fence for fence in FENCES if fence.needs_server]
ADDRESS = "localhost:8080"


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def place(fence: Fence) -> str:
    return fence.place


@pytest.mark.parametrize("document", RUN, ids=name)
def test_commands_and_programs_of_a_page_run_in_order(document: Path, reader_folder: Path) -> None:
    for fence in fences(document):
        if fence.language == "toml":
            save(fence, reader_folder)
        if fence.not_run or fence.needs_server:
            continue
        if fence.language == "console":
            for command in fence.commands:
                succeeded(command)
        if fence.language == "python":
            exec(compile(fence.text, fence.place, "exec"), {"__name__": "__main__"})  # noqa: S102 -- ours


def save(fence: Fence, folder: Path) -> None:
    """Save a TOML block under the name that the text below or above it gives it."""
    text = fence.document.read_text(encoding="utf-8")
    start = text.index(fence.text)
    around = text[max(0, start - 300) : start + len(fence.text) + 200]
    for path in re.findall(r"[Ss]ave (?:this|it) as `([\w.-]+)`", around):
        (folder / path).write_text(fence.text, encoding="utf-8")


def test_every_block_has_a_known_language_and_every_reason_is_given() -> None:
    assert {fence.language for fence in FENCES} <= LANGUAGES
    assert all(fence.not_run != "" for fence in FENCES)


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "console"], ids=place)
def test_options_of_every_command_exist(fence: Fence) -> None:
    import shlex

    assert fence.commands, fence.place
    for command in fence.commands:
        check_command(shlex.split(command))


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "sh"], ids=place)
def test_shell_blocks_are_valid(fence: Fence) -> None:
    # README's commands build environments and train: what is run of them is the tutorial.
    assert fence.not_run or fence.needs_server or fence.document == ROOT / "README.md", fence.place
    check_shell(fence.text)


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "python"], ids=place)
def test_programs_compile(fence: Fence) -> None:
    compile(fence.text, fence.place, "exec")


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "toml"], ids=place)
def test_toml_blocks_are_targets_key_maps_or_recipes(fence: Fence, tmp_path: Path) -> None:
    path = tmp_path / "block.toml"
    path.write_text(fence.text, encoding="utf-8")
    if "backend =" in fence.text:
        load_target(str(path))
    elif "[renames." in fence.text:
        read_key_map(path)
    else:
        read_recipe(path)


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "json"], ids=place)
def test_json_blocks_are_json(fence: Fence) -> None:
    json.loads(fence.text)


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.language == "yaml"], ids=place)
def test_commands_of_workflows_exist(fence: Fence) -> None:
    jobs = yaml.safe_load(fence.text)["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert scripts
    for script in scripts:
        check_shell(re.sub(r"\$\{\{.*?\}\}", "VALUE", script))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_of_the_repository_that_a_page_names_exist(document: Path) -> None:
    missing = [path for path in repository_paths(document) if not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []


def test_the_manifests_that_kubectl_applies_are_written(reader_folder: Path) -> None:
    page = ROOT / "docs" / "how-to" / "kubernetes.md"
    for fence in fences(page):
        if fence.language == "console":
            for command in fence.commands:
                succeeded(command)
    text = page.read_text(encoding="utf-8")
    applied = re.findall(r"manifests/\w+/", text)
    listed = re.findall(r"^\| `(\w+/[\w-]+\.yaml)` \|", text, flags=re.MULTILINE)
    assert applied
    assert len(listed) == 7
    for path in (*applied, *(f"manifests/{file}" for file in listed)):
        assert (reader_folder / path).exists(), path


def test_server_examples_get_answers(workspace: Workspace, tmp_path: Path) -> None:
    assert [fence.language for fence in SERVED] == ["sh", "python"]
    bundle = Bundle.open(workspace.folder / "bundle")
    store = EngineStore(workspace.folder / "engines")
    photo = workspace.folder / "photo.jpg"
    succeeded(
        f"ccr-deploy encode {photo} -o {tmp_path}/photo.ccr --bundle {bundle.path} --engines {store.path} "
        "--target cpu"
    )
    with ServerProcess(bundle, store) as server:
        server.wait_for("ready")
        for fence in SERVED:
            assert ADDRESS in fence.text
            program = fence.text.replace(ADDRESS, server.http_address)
            if fence.language == "sh":
                command = ["/bin/bash", "-c", "set -e\n" + program.replace("curl -s ", "curl -sf ")]
            else:
                command = [sys.executable, "-c", program]
            finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert finished.returncode == 0, finished.stderr
            assert any(label in finished.stdout for label in bundle.manifest.class_names)
            if fence.language == "sh":
                assert "ccr_deploy_images_total" in finished.stdout
