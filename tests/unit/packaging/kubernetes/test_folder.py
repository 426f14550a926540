"""The folder of manifests is written completely, and replaces only older manifests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from ccr_deploy import __version__
from ccr_deploy.core.atomic import atomic_folder
from ccr_deploy.errors import CcrDeployError, MissingExtraError, WrongUsageError
from ccr_deploy.packaging.kubernetes.folder import publish, write_manifests
from ccr_deploy.packaging.kubernetes.settings import DeploymentSettings

if TYPE_CHECKING:
    from pathlib import Path

CPU = DeploymentSettings(name="ccr", image="ccr-deploy:1.0.0", target="cpu")
FIXED = DeploymentSettings(name="ccr", image="ccr-deploy:1.0.0", target="cpu", replicas_min=3, replicas_max=3)
FILES = {
    "deployment/autoscaler.yaml",
    "deployment/deployment.yaml",
    "deployment/disruption-budget.yaml",
    "deployment/service.yaml",
    "kserve/disruption-budget.yaml",
    "kserve/inference-service.yaml",
}


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_returned_paths_are_all_written_files(tiny_bundle, tmp_path) -> None:
    paths = write_manifests(tiny_bundle, tmp_path / "new" / "manifests", CPU)
    assert {path.relative_to(tmp_path / "new" / "manifests").as_posix() for path in paths} == FILES
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(paths)


def test_writing_twice_gives_the_same_bytes(tiny_bundle, tmp_path) -> None:
    write_manifests(tiny_bundle, tmp_path / "a", CPU)
    write_manifests(tiny_bundle, tmp_path / "b", CPU)
    write_manifests(tiny_bundle, tmp_path / "b", CPU)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_file_has_a_header_with_its_origin(tiny_bundle, tmp_path) -> None:
    write_manifests(tiny_bundle, tmp_path / "manifests", CPU)
    for name, text in contents(tmp_path / "manifests").items():
        header = [line for line in text.splitlines() if line.startswith("#")]
        assert header[0].startswith(f"# Written by ccr-deploy {__version__} ")
        assert tiny_bundle.manifest.contract_id in text
        assert "the target cpu: " in "".join(header)
        assert header[-1].endswith(f"kubectl apply -f {name.partition('/')[0]}/")


def test_older_manifests_are_replaced_completely(tiny_bundle, tmp_path) -> None:
    write_manifests(tiny_bundle, tmp_path / "manifests", CPU)
    write_manifests(tiny_bundle, tmp_path / "manifests", FIXED)
    assert set(contents(tmp_path / "manifests")) == FILES - {"deployment/autoscaler.yaml"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifests"]


def test_an_empty_folder_is_filled(tiny_bundle, tmp_path) -> None:
    (tmp_path / "manifests").mkdir()
    write_manifests(tiny_bundle, tmp_path / "manifests", CPU)
    assert set(contents(tmp_path / "manifests")) == FILES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "mine"),
        ("deployment/deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n"),
        ("deployment/extra.yaml", f"# Written by ccr-deploy {__version__}"),
    ],
)
def test_a_folder_with_foreign_files_is_refused_and_unchanged(
    tiny_bundle, tmp_path, name: str, text: str
) -> None:
    folder = tmp_path / "manifests"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(
        WrongUsageError, match=f"{name}.* is not a manifest of ccr-deploy: choose another folder"
    ):
        write_manifests(tiny_bundle, folder, CPU)
    assert contents(tmp_path) == {f"manifests/{name}": text}


def test_file_in_place_of_the_folder_is_refused(tiny_bundle, tmp_path) -> None:
    (tmp_path / "manifests").write_text("mine", encoding="utf-8")
    with pytest.raises(WrongUsageError, match="not a folder: choose another path"):
        write_manifests(tiny_bundle, tmp_path / "manifests", CPU)
    assert contents(tmp_path) == {"manifests": "mine"}


def test_symbolic_link_is_kept(tiny_bundle, tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_manifests(tiny_bundle, tmp_path / "link", CPU)
    assert (tmp_path / "link").is_symlink()
    assert set(contents(tmp_path / "real")) == FILES


def test_unwritable_folder_is_named(tiny_bundle, tmp_path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(CcrDeployError, match="manifests: cannot be written"):
        write_manifests(tiny_bundle, tmp_path / "file" / "manifests", CPU)


def test_a_full_disk_leaves_the_old_content(tiny_bundle, tmp_path) -> None:
    write_manifests(tiny_bundle, tmp_path / "manifests", FIXED)
    before = contents(tmp_path)
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from ccr_deploy.errors import CcrDeployError
        from ccr_deploy.packaging.kubernetes.folder import publish
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sys.dont_write_bytecode = True  # or it stays behind, cut short
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            publish(Path(sys.argv[1]), {"deployment/deployment.yaml": "x" * 5000})
        except CcrDeployError as error:
            print(error)
    """)
    folder = tmp_path / "manifests"
    finished = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert finished.stdout == f"{folder}: cannot be written (File too large)\n"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [True, False])
def test_an_interrupted_folder_leaves_what_was_there(
    tmp_path, error: type[BaseException], there: bool
) -> None:
    path = tmp_path / "folder"
    if there:
        path.mkdir()
        (path / "old").write_text("old", encoding="utf-8")
    before = contents(tmp_path)

    def interrupted() -> None:
        with atomic_folder(path) as new:
            (new / "half").write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        interrupted()
    assert contents(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == (["folder"] if there else [])


def test_folder_is_readable_to_others(tmp_path) -> None:
    with atomic_folder(tmp_path / "folder"):
        pass
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_killed_writer_leaves_the_old_folder(tmp_path) -> None:
    publish(tmp_path / "folder", {"deployment/service.yaml": "old"})
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from ccr_deploy.core.atomic import atomic_folder
        with atomic_folder(Path(sys.argv[1])) as new:
            (new / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "folder")], check=False)
    assert done.returncode == -9
    assert contents(tmp_path / "folder") == {"deployment/service.yaml": "old"}


def test_a_bundle_without_the_targets_graphs_is_refused(tiny_bundle, tmp_path) -> None:
    gpu = DeploymentSettings(name="ccr", image="ccr-deploy:1.0.0", target="l4")
    with pytest.raises(WrongUsageError, match=r"has no int8 iteration-major encoder graph: .*calibrate"):
        write_manifests(tiny_bundle, tmp_path / "manifests", gpu)
    assert list(tmp_path.iterdir()) == []


def test_missing_pyyaml_names_its_extra(tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"needs the package pyyaml.*ccr-deploy\[kubernetes\]"):
        write_manifests(tiny_bundle, tmp_path / "manifests", CPU)
    assert list(tmp_path.iterdir()) == []
