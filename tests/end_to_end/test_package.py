"""``ccr-deploy package``: a repository is written completely, and every failure leaves the old one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import text_format
from msgspec import structs
from tritonclient.grpc.model_config_pb2 import ModelConfig

import ccr_deploy
from benchmarks.hosts.processes import hearing_ctrl_c
from ccr_deploy.bundle.reader import Bundle, sha256_of
from ccr_deploy.core.atomic import locked_folder
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.errors import RepositoryError
from ccr_deploy.export.exporter import export_bundle
from ccr_deploy.models.checkpoint import untrained_checkpoint
from tests.support.bundles import TINY
from tests.support.cli_runner import run
from tests.support.plans import H200, L4, fleet_target, put_plans

if TYPE_CHECKING:
    from tests.support.cli_runner import Outcome

BROKE, WRONG_USAGE, INTERRUPTED = 3, 2, 130
MODELS = {"encoder", "classifier", "payload", "image_to_label", "payload_to_label"}
AT_A_RENAME = """
import os, signal, sys
sys.dont_write_bytecode = True  # which is renamed too
number, sent = int(sys.argv.pop(1)), int(sys.argv.pop(1))
renames = 0
def watch(event, _):
    global renames
    if event == "os.rename":
        renames += 1
        if renames == number:
            os.kill(os.getpid(), sent)
from ccr_deploy.cli import main
sys.addaudithook(watch)
main()
"""
"""Signals itself when it is about to do its n-th rename; all before them is written beside the repository."""
WITH_A_FULL_DISK = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # or it stays behind, cut short
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from ccr_deploy.cli import main
main()
"""
"""A limit on file sizes stands for the full disk: every larger write fails."""


@pytest.fixture
def repository(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    assert package(tiny_bundle, tmp_path / "repository").status == 0
    return tmp_path / "repository"


def package(bundle: Bundle, output: Path, *options: object) -> Outcome:
    engines = output.parent / "engines"
    return run(
        "package", bundle.path, "--format", "triton", "--output", output, "--engines", engines, *options
    )


def in_a_process(program: str, bundle: Bundle, output: Path, *before: object) -> subprocess.CompletedProcess:
    arguments = ["package", bundle.path, "--format", "triton", "--output", output]
    command = [sys.executable, "-c", program, *before, *arguments, "--engines", output.parent / "engines"]
    with hearing_ctrl_c():
        return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def config(repository: Path, model: str) -> ModelConfig:
    return text_format.Parse((repository / model / "config.pbtxt").read_text(), ModelConfig())


def served_version(repository: Path) -> int:
    """The version of an ensemble's steps, which must be the same."""
    for name in ("image_to_label", "payload_to_label"):
        for step in config(repository, name).ensemble_scheduling.step:
            assert (repository / step.model_name / str(step.model_version)).is_dir()
    return config(repository, "payload_to_label").ensemble_scheduling.step[0].model_version


def test_a_new_repository(tiny_bundle: Bundle, tmp_path: Path) -> None:
    outcome = package(tiny_bundle, tmp_path / "new" / "repository")
    repository = tmp_path / "new" / "repository"
    assert (outcome.status, outcome.stderr) == (0, "")
    assert f"{repository}: version 1 of" in outcome.stdout
    assert {path.name for path in repository.iterdir()} == MODELS | {"ccr-deploy.json"}
    assert {path.name for path in repository.parent.iterdir()} == {"repository"}
    graph = tiny_bundle.file(tiny_bundle.graph("encoder", "fp32", "iteration-major").file)
    assert (repository / "encoder/1/model.onnx").read_bytes() == graph.read_bytes()
    labels = tiny_bundle.manifest.class_names
    for model in ("classifier", "image_to_label", "payload_to_label"):
        assert (repository / model / "labels.txt").read_text().splitlines() == list(labels)


def test_the_payload_step_carries_this_packages_own_modules(repository: Path) -> None:
    package_folder = Path(ccr_deploy.__file__).parent
    copy = repository / "payload/1/ccr_deploy"
    carried = {str(path.relative_to(copy)) for path in copy.rglob("*.py")}
    assert carried == {"__init__.py", "errors.py", "codec/__init__.py", "codec/payload.py"}
    for name in carried:
        assert (copy / name).read_bytes() == (package_folder / name).read_bytes()


def test_every_configuration_names_its_folder(repository: Path) -> None:
    for model in MODELS:
        assert config(repository, model).name == model


def test_classes_without_names_get_numbers(tmp_path: Path) -> None:
    bundle = export_bundle(untrained_checkpoint(TINY), tmp_path / "bundle", schedules=("iteration-major",))
    assert package(bundle, tmp_path / "repository").status == 0
    names = (tmp_path / "repository/classifier/labels.txt").read_text().splitlines()
    assert names == [f"class {label}" for label in range(5)]


def test_plans_with_their_sidecars(tiny_bundle: Bundle, tmp_path: Path) -> None:
    target, store = fleet_target(tmp_path), EngineStore(tmp_path / "engines")
    for device in (H200, L4):
        put_plans(tiny_bundle, target, store, device)
    outcome = package(tiny_bundle, tmp_path / "repository", "--target", target)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert "the server needs TensorRT 10.13.3.9, compute capability 8.9, 9.0" in outcome.stdout
    found = {path.name for path in (tmp_path / "repository/classifier/1").iterdir()}
    plans = {"model.cc-8.9.plan", "model.cc-9.0.plan"}
    assert found == plans | {f"{name}.json" for name in plans}


def test_a_second_run_adds_a_version_and_leaves_the_first(tiny_bundle: Bundle, repository: Path) -> None:
    before = files_below(repository)
    outcome = package(tiny_bundle, repository, "--json")
    assert outcome.status == 0
    assert json.loads(outcome.stdout)["version"] == 2
    after = files_below(repository)
    changed = {"ccr-deploy.json", "image_to_label/config.pbtxt", "payload_to_label/config.pbtxt"}
    assert {name for name in before if after[name] != before[name]} == changed
    assert served_version(repository) == 2
    record = json.loads((repository / "ccr-deploy.json").read_text())
    assert [version["version"] for version in record["versions"]] == [1, 2]


def test_unchanged_files_are_not_rewritten(tiny_bundle: Bundle, repository: Path) -> None:
    """Triton would load every version again."""
    kept = [repository / "encoder/config.pbtxt", repository / "classifier/labels.txt"]
    before = [path.stat().st_mtime_ns for path in kept]
    assert package(tiny_bundle, repository).status == 0
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_a_second_run_through_a_link(tiny_bundle: Bundle, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(repository)
    assert package(tiny_bundle, tmp_path / "current").status == 0
    assert (tmp_path / "current").is_symlink()
    assert served_version(repository) == 2


def test_an_empty_folder_becomes_a_repository(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    assert package(tiny_bundle, tmp_path / "repository").status == 0
    assert served_version(tmp_path / "repository") == 1


@pytest.mark.parametrize("kind", ["folder", "file", "bundle"])
def test_an_output_with_other_content_is_refused(tiny_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "output"
    if kind == "folder":
        output.mkdir()
        (output / "thesis.txt").write_text("important")
    elif kind == "file":
        output.write_text("important")
    else:
        shutil.copytree(tiny_bundle.path, output)
    before = files_below(tmp_path)
    outcome = package(tiny_bundle, output)
    assert outcome.status == WRONG_USAGE
    assert f"{output}: not a model repository of ccr-deploy" in outcome.error_line
    assert files_below(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"output"}


def test_a_damaged_record_is_refused(tiny_bundle: Bundle, repository: Path) -> None:
    (repository / "ccr-deploy.json").write_text('{"schema_version": 1}')
    outcome = package(tiny_bundle, repository)
    assert outcome.status == BROKE
    assert "ccr-deploy.json" in outcome.error_line


def test_another_models_shapes_are_refused(repository: Path, tmp_path: Path) -> None:
    """All versions of a model have one configuration."""
    larger = untrained_checkpoint(structs.replace(TINY, image_width=64))
    bundle = export_bundle(larger, tmp_path / "larger", schedules=("iteration-major",))
    before = files_below(repository)
    outcome = package(bundle, repository)
    assert outcome.status == WRONG_USAGE
    assert "image_width of this repository is 48, the bundle's is 64" in outcome.error_line
    assert files_below(repository) == before


def test_another_training_is_a_new_version(repository: Path, tmp_path: Path) -> None:
    bundle = export_bundle(
        untrained_checkpoint(TINY, seed=7), tmp_path / "other", schedules=("iteration-major",)
    )
    assert package(bundle, repository).status == 0
    first, second = (
        json.loads((repository / "payload" / version / "contract.json").read_text()) for version in "12"
    )
    assert set(first) == {"contract_id", "image_height", "image_width", "code_bytes"}
    assert {name for name in first if first[name] != second[name]} == {"contract_id"}


@pytest.mark.parametrize("limit", [0, 500, 5000])
def test_a_full_disk_leaves_nothing_new(tiny_bundle: Bundle, tmp_path: Path, limit: int) -> None:
    finished = in_a_process(WITH_A_FULL_DISK, tiny_bundle, tmp_path / "repository", limit)
    assert finished.returncode == BROKE
    assert finished.stderr.strip() == (
        f"ccr-deploy: error: {tmp_path / 'repository'}: cannot be written (File too large)"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 500, 5000])
def test_a_full_disk_leaves_the_old_repository(tiny_bundle: Bundle, repository: Path, limit: int) -> None:
    before = files_below(repository)
    finished = in_a_process(WITH_A_FULL_DISK, tiny_bundle, repository, limit)
    assert finished.returncode == BROKE
    assert files_below(repository) == before
    assert {path.name for path in repository.parent.iterdir()} == {"repository"}


@pytest.mark.parametrize("number", range(1, 9))
def test_ctrl_c_at_any_rename_leaves_the_old_repository(
    tiny_bundle: Bundle, repository: Path, number: int
) -> None:
    before = files_below(repository)
    finished = in_a_process(AT_A_RENAME, tiny_bundle, repository, number, int(signal.SIGINT))
    assert finished.returncode == INTERRUPTED, finished.stderr
    assert finished.stderr.strip().startswith("ccr-deploy: interrupted")
    assert files_below(repository) == before
    assert {path.name for path in repository.parent.iterdir()} == {"repository"}


@pytest.mark.parametrize("number", range(1, 9))
def test_a_killed_run_leaves_complete_ensembles_and_the_next_run_repairs_it(
    tiny_bundle: Bundle, repository: Path, number: int
) -> None:
    finished = in_a_process(AT_A_RENAME, tiny_bundle, repository, number, int(signal.SIGKILL))
    assert finished.returncode == -signal.SIGKILL
    assert served_version(repository) in {1, 2}
    assert package(tiny_bundle, repository).status == 0
    newest = json.loads((repository / "ccr-deploy.json").read_text())["versions"][-1]["version"]
    assert served_version(repository) == newest
    assert {path.name for path in repository.parent.iterdir()} == {"repository"}


def test_there_are_eight_renames(tiny_bundle: Bundle, repository: Path) -> None:
    """So that the two tests above try all of them."""
    finished = in_a_process(AT_A_RENAME, tiny_bundle, repository, 9, int(signal.SIGINT))
    assert finished.returncode == 0


def test_two_commands_at_once(tiny_bundle: Bundle, repository: Path) -> None:
    staging = repository.parent / ".repository.packaging"
    staging.mkdir()
    before = files_below(repository)
    with locked_folder(staging, RepositoryError):
        outcome = package(tiny_bundle, repository)
    assert outcome.status == BROKE
    assert "another command is writing to it" in outcome.error_line
    assert files_below(repository) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tiny_bundle: Bundle, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    outcome = package(tiny_bundle, tmp_path / "repository")
    tmp_path.chmod(0o700)
    assert outcome.status == BROKE
    assert "cannot be written" in outcome.error_line


def test_packaging_needs_only_the_core_packages(tiny_bundle: Bundle, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'tensorrt', 'google', 'tritonclient'):\n"
        "    sys.modules[name] = None  # as if it were not installed\n"
        "from ccr_deploy.cli import main\n"
        "main()\n"
    )
    finished = in_a_process(program, tiny_bundle, tmp_path / "repository")
    assert finished.returncode == 0, finished.stderr
    assert served_version(tmp_path / "repository") == 1


def test_an_unknown_format(tiny_bundle: Bundle, tmp_path: Path) -> None:
    outcome = run("package", tiny_bundle.path, "--format", "zip", "--output", tmp_path / "repository")
    assert outcome.status == WRONG_USAGE
