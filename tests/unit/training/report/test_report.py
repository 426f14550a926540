"""The report on trainings, from planted results."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from PIL import Image
from rich.console import Console

from ccr_deploy.benchmarking.results import Contention, MachineState
from ccr_deploy.core.metrics import Interval
from ccr_deploy.errors import CcrDeployError, WrongUsageError
from ccr_deploy.models.checkpoint import save_checkpoint, untrained_checkpoint, weights_digest
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.models.presets import PRESETS
from ccr_deploy.reporting.terminal import print_table
from tests.support.bundles import TINY
from tests.unit.training.evaluation.test_accuracy import GROUPS, planted
from training.evaluation.comparison import compare
from training.evaluation.results import IterationQuality, LatencyConditions, Restoration, write_result
from training.report.report import collect, write_report
from training.report.tables import report_tables

if TYPE_CHECKING:
    from pathlib import Path

EVALUATION = planted([1, 1, 0, 0, 1, 0], GROUPS)
RESTORATION = Restoration(
    created_by="test",
    data="photos",
    images=6,
    image_height=32,
    image_width=48,
    code_bytes=12,
    ms_ssim_scales=2,
    per_iteration=tuple(
        IterationQuality(iteration=t, l1=0.2 / t, psnr_db=10.0 + t, ms_ssim=0.5 + 0.1 * t) for t in (1, 2, 3)
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    checkpoint = untrained_checkpoint(TINY)
    folder = tmp_path / "finetune <1>"
    entry = EVALUATION.per_iteration[0]
    untrained = structs.replace(entry, iterations=4, is_trained=False)
    evaluation = structs.replace(
        EVALUATION, weights_sha256=weights_digest(checkpoint.state_dict), per_iteration=(entry, untrained)
    )
    write_result(evaluation, folder / "evaluation.json")
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    return folder


@pytest.fixture
def compressor(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrain"
    write_result(RESTORATION, folder / "restoration.json")
    Image.new("RGB", (40, 30), (1, 2, 3)).save(folder / "restored.png")
    return folder


def test_a_report_has_all_results_in_three_formats(run: Path, compressor: Path, tmp_path: Path) -> None:
    comparison = compare("a", "b", [(EVALUATION, EVALUATION)], 3)
    output = tmp_path / "new" / "report"
    report = write_report(output, [run, compressor], [comparison])
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json", "report.md"]
    assert json.loads((output / "report.json").read_text())["runs"][1]["name"] == "pretrain"
    text = (output / "report.md").read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        "Accuracy and payload",
        "Beside the paper's Table 1",
        "Compute cost",
        "Differences of top-1, paired by image",
        "Restored images: pretrain",
    ]
    assert [run.name for run in report.runs] == ["finetune <1>", "pretrain"]
    assert report.warnings == ()


def test_the_page_needs_no_other_file_and_shows_the_restored_images(
    run: Path, compressor: Path, tmp_path: Path
) -> None:
    write_report(tmp_path / "report", [run, compressor])
    page = (tmp_path / "report" / "report.html").read_text()
    (picture,) = re.findall(
        r'<div class="wide">\s*<figure><img [^>]*src="data:image/png;base64,([^"]*)"', page
    )
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (40, 30)
    assert "http" not in page
    assert "finetune &lt;1&gt;" in page
    assert "<1>" not in page
    assert "Parity" not in page


def test_the_figures_are_those_of_trained_t(run: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "report", [run])
    page = (tmp_path / "report" / "report.html").read_text()
    (figures,) = re.findall(r'<dl class="figures">(.*?)</dl>', page, re.DOTALL)
    assert re.findall(r"<dt>(.*?)</dt>", figures) == ["top-1: finetune &lt;1&gt;, T=3"]
    assert "50.0 %" in figures


def test_a_small_model_is_not_compared_with_the_paper(run: Path) -> None:
    table = report_tables(collect([run]))[1]
    assert table.rows == (("finetune <1>", "3", "layer2", "1", "14,581,796", "50.0", "65.14"),)
    assert (
        "finetune <1>: layers of other widths and 5 classes instead of 100, so the accuracy is not"
        in table.note
    )


def test_the_papers_model_is_comparable_on_the_papers_data(run: Path) -> None:
    paper = structs.replace(PRESETS["ccr-layer2"], classifier=ClassifierConfig(cut="layer2", classes=100))
    write_result(structs.replace(EVALUATION, config=paper, data="my photos"), run / "evaluation.json")
    (run / "checkpoint.pt").unlink()
    note = report_tables(collect([run]))[1].note
    assert "finetune <1>: comparable if my photos is ImageNet-100 with the classes of the paper." in note
    assert "not comparable" not in note


def test_runs_with_the_same_difference_share_a_sentence(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_result(EVALUATION, other / "evaluation.json")
    note = report_tables(collect([run, other]))[1].note
    assert "finetune <1>, other: layers of other widths" in note
    assert note.count("not comparable") == 1


def test_an_untrained_t_is_marked(run: Path) -> None:
    accuracy = report_tables(collect([run]))[0]
    assert [row[1] for row in accuracy.rows] == ["3", "4*"]
    assert "*: not trained with this T" in accuracy.note


def test_latencies_name_the_machine_and_warn_if_they_are_unreliable(run: Path) -> None:
    without = report_tables(collect([run]))[2]
    assert without.warning == ""
    assert "p50: one image" not in without.note
    machine = MachineState("EPYC", 2, 8.0, "Linux", "3.11", 90.0, None)
    contention = Contention("chain", 1.0, 2, 1.5, 0.0, 0.0)
    conditions = LatencyConditions(
        device="EPYC",
        threads=1,
        rounds=5,
        machine=machine,
        contention=contention,
        unreliable_reasons=("other processes used 1.5 of 2 cores",),
    )
    entry = structs.replace(
        EVALUATION.per_iteration[0], latency_ms_p50=2.5, latency_ms_p50_interval=Interval(2.25, 2.75)
    )
    write_result(
        structs.replace(EVALUATION, per_iteration=(entry,), latency=conditions), run / "evaluation.json"
    )
    (run / "checkpoint.pt").unlink()
    cost = report_tables(collect([run]))[2]
    assert cost.rows[0][-2:] == ("2.50", "2.25 – 2.75")
    assert cost.warning == "unreliable latencies: other processes used 1.5 of 2 cores"
    assert "one image per call in PyTorch on EPYC with 1 thread," in cost.note


def test_an_evaluation_of_another_checkpoint_is_a_warning(run: Path, tmp_path: Path) -> None:
    save_checkpoint(untrained_checkpoint(TINY, seed=1), run / "checkpoint.pt")
    report = write_report(tmp_path / "report", [run])
    (warning,) = report.warnings
    assert warning == (
        f"{run / 'evaluation.json'}: is of another checkpoint than checkpoint.pt: "
        "run python -m training evaluate again"
    )
    assert "is of another checkpoint" in (tmp_path / "report" / "report.html").read_text()
    assert "is of another checkpoint" in (tmp_path / "report" / "report.md").read_text()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match=r"has neither evaluation\.json nor restoration\.json"):
        write_report(tmp_path / "report", [tmp_path])
    assert not (tmp_path / "report").exists()


def test_a_damaged_result_leaves_the_old_report(run: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "report", [run])
    before = (tmp_path / "report" / "report.md").read_bytes()
    (run / "evaluation.json").write_text("{")
    with pytest.raises(CcrDeployError, match="not JSON, perhaps truncated"):
        write_report(tmp_path / "report", [run])
    assert (tmp_path / "report" / "report.md").read_bytes() == before


@pytest.mark.parametrize("name", ["report.json", "report.md", "report.html"])
def test_a_file_of_another_program_is_kept(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my own notes")
    with pytest.raises(WrongUsageError, match=f"contains a {name} that ccr-deploy did not write"):
        write_report(tmp_path, [run])
    assert (tmp_path / name).read_text() == "my own notes"


def test_a_report_can_be_written_again(run: Path, compressor: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "report", [run])
    write_report(tmp_path / "report", [run, compressor])
    assert "pretrain" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_a_terminal(run: Path, compressor: Path, width: int) -> None:
    config = structs.replace(TINY, classifier=structs.replace(TINY.classifier, cut="layer1"))
    evaluation = structs.replace(EVALUATION, config=config, parameters=20_293_224, data="imagenet100")
    write_result(evaluation, run / "evaluation.json")
    (run / "checkpoint.pt").unlink()
    run = run.rename(run.parent / "finetune-layer1")
    file = io.StringIO()
    console = Console(file=file, width=width)
    comparison = compare("T=2,3,4", "T=3", [(EVALUATION, EVALUATION)] * 5, 3)
    for table in report_tables(collect([run, compressor], [comparison])):
        print_table(console, table)
    text = file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert re.search(r"finetune-layer1 .* 0\.0 – 100\.0 .*20,293,224", text)
