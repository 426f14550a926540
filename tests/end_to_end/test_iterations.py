"""The exported T and the trained ones: errors, and warnings in every result."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from ccr_deploy.models.checkpoint import save_checkpoint, untrained_checkpoint
from ccr_deploy.models.presets import preset
from tests.support.cli_runner import Outcome, run

if TYPE_CHECKING:
    from pathlib import Path

    from ccr_deploy.models.checkpoint import Checkpoint

WARNING = "T=2 was not trained: the checkpoint was trained with T=3"


def export(*arguments: object) -> Outcome:
    return run("export", "--no-fp16", "--schedule", "iteration-major", *arguments)


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="module")
def workplace(tiny_checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle whose T was not trained, and its engines."""
    folder = tmp_path_factory.mktemp("untrained")
    exported = export(
        "--checkpoint", tiny_checkpoint_file, "--iterations", 2, "--untrained-iterations", folder / "bundle"
    )
    assert (exported.status, exported.stderr) == (0, "")
    assert f"warning: {WARNING}\n" in exported.stdout
    assert (
        run("build-engine", folder / "bundle", "--target", "cpu", "--engines", folder / "engines").status == 0
    )
    return folder


def test_a_bundle_records_its_iterations_and_the_trained_ones(workplace: Path) -> None:
    found = manifest(workplace / "bundle")
    assert (found["model"]["iterations"], found["contract"]["iterations"]) == (2, 2)
    assert found["trained_iterations"] == [3]


@pytest.mark.usefixtures("short_rounds")
def test_verify_benchmark_and_their_report_say_that_a_t_was_not_trained(workplace: Path) -> None:
    common = (
        workplace / "bundle", "--target", "cpu", "--engines", workplace / "engines",
        "--report", workplace / "report",
    )  # fmt: skip
    for command in (("verify", *common), ("benchmark", *common, "--rounds", 2)):
        outcome = run(*command)
        assert (outcome.status, outcome.stderr) == (0, "")
        assert outcome.stdout.splitlines()[1] == f"warning: {WARNING}"
    for name in ("verify", "benchmark"):
        found = json.loads((workplace / "report" / f"{name}.json").read_text())
        assert (found["iterations"], found["trained_iterations"]) == (2, [3])
        assert found["warnings"] == [WARNING]
    for name in ("report.md", "report.html"):
        assert (workplace / "report" / name).read_text().count(WARNING) == 1


def test_a_refused_t_leaves_no_bundle(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    outcome = export("--checkpoint", tiny_checkpoint_file, "--iterations", 2, tmp_path / "bundle")
    assert outcome.status == 2
    assert f"{WARNING}: give --iterations one of those, or add --untrained-iterations" in outcome.error_line
    assert not (tmp_path / "bundle").exists()


def test_any_trained_t_is_exported_without_a_warning(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(replace(tiny_checkpoint, trained_iterations=(2, 3, 4)), path)
    for iterations in (2, 4):
        outcome = export("--checkpoint", path, "--iterations", iterations, tmp_path / "bundle")
        assert outcome.status == 0
        assert "warning" not in outcome.stdout
        assert manifest(tmp_path / "bundle")["trained_iterations"] == [2, 3, 4]


@pytest.mark.parametrize(
    ("options", "run_with", "trained"),
    [
        ((), 3, [3]),
        (("--trained-iterations", 2), 2, [2]),
        (("--trained-iterations", "4, 2", "--iterations", 2), 2, [2, 4]),
        (("--iterations", 1, "--untrained-iterations"), 1, [3]),
    ],
)
def test_a_bare_state_dict_has_the_given_trained_iterations_or_the_presets(
    options: tuple[object, ...], run_with: int, trained: list[int], tmp_path: Path
) -> None:
    torch.save(dict(untrained_checkpoint(preset("demo")).state_dict), tmp_path / "bare.pt")
    arguments = ("--checkpoint", tmp_path / "bare.pt", "--preset", "demo", *options)
    assert export(*arguments, tmp_path / "bundle").status == 0
    found = manifest(tmp_path / "bundle")
    assert (found["contract"]["iterations"], found["trained_iterations"]) == (run_with, trained)


@pytest.mark.parametrize("options", [("--iterations", 2), ("--trained-iterations", "2,4")])
def test_another_t_is_refused_for_a_bare_state_dict_too(options: tuple[object, ...], tmp_path: Path) -> None:
    torch.save(dict(untrained_checkpoint(preset("demo")).state_dict), tmp_path / "bare.pt")
    outcome = export("--checkpoint", tmp_path / "bare.pt", "--preset", "demo", *options, tmp_path / "bundle")
    assert outcome.status == 2
    assert "was not trained" in outcome.error_line


def test_a_baseline_that_was_trained_with_another_t_is_refused_unless_allowed(
    tiny_checkpoint_file: Path, tiny_baseline: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(replace(tiny_baseline, trained_iterations=(8,)), tmp_path / "baseline.pt")
    arguments = ("--checkpoint", tiny_checkpoint_file, "--baseline", tmp_path / "baseline.pt")
    warning = "T=3 was not trained: the baseline was trained with T=8"
    refused = export(*arguments, tmp_path / "bundle")
    assert refused.status == 2
    assert warning in refused.error_line
    allowed = export(*arguments, "--untrained-iterations", tmp_path / "bundle")
    assert allowed.status == 0
    assert f"warning: {warning}\n" in allowed.stdout
    assert manifest(tmp_path / "bundle")["baseline"]["trained_iterations"] == [8]


def test_untrained_weights_are_exported_with_a_warning(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(replace(tiny_checkpoint, trained_iterations=()), tmp_path / "model.pt")
    outcome = export("--checkpoint", tmp_path / "model.pt", "--iterations", 2, tmp_path / "bundle")
    assert outcome.status == 0
    assert "warning: the checkpoint's weights were never trained\n" in outcome.stdout


def test_describe_prints_the_trained_iterations_of_a_checkpoint(tiny_checkpoint_file: Path) -> None:
    assert "was trained with T=3;" in " ".join(
        run("describe", "--checkpoint", tiny_checkpoint_file).stdout.split()
    )
    (found,) = json.loads(run("describe", "--checkpoint", tiny_checkpoint_file, "--json").stdout)
    assert found["trained_iterations"] == [3]
    assert json.loads(run("describe", "--preset", "demo", "--json").stdout)[0]["trained_iterations"] is None
