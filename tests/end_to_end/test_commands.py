"""Every command on a small model, from checkpoint to report."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs
from PIL import Image

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from ccr_deploy.benchmarking.results import SCHEMA_VERSION as BENCHMARK_SCHEMA_VERSION
from ccr_deploy.benchmarking.results import BenchmarkReport
from ccr_deploy.bundle.reader import sha256_of
from ccr_deploy.core.records import convert
from ccr_deploy.errors import CcrDeployError
from ccr_deploy.models.checkpoint import save_checkpoint
from ccr_deploy.verification.results import SCHEMA_VERSION
from ccr_deploy.workflow import benchmark as workflow
from tests.support.busy import busy_machine
from tests.support.cli_runner import run
from tests.support.report_folder import add_to_folder

if TYPE_CHECKING:
    from ccr_deploy.models.checkpoint import Checkpoint

CHECK_FAILED = 1
ONE_THREAD = """
description = "one thread: several would wait for each other for minutes on a busy machine"
backend = "onnxruntime"
[options]
threads = 1
"""


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images in two regions of two classes."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(1)
    for number in range(12):
        path = folder / ("apple", "egg")[number % 2] / f"region{number % 4 // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def workplace(
    tiny_checkpoint_file: Path,
    tiny_baseline: Checkpoint,
    image_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder in which export and build-engine were run."""
    folder = tmp_path_factory.mktemp("workplace")
    save_checkpoint(tiny_baseline, folder / "baseline.pt")
    exported = run(
        "export", "--checkpoint", tiny_checkpoint_file, "--baseline", folder / "baseline.pt",
        "--images", image_folder, folder / "bundle",
    )  # fmt: skip
    assert (exported.status, exported.stderr) == (0, "")
    assert re.search(r"encoder\.fp32\.layer-major\.[0-9a-f]{12}\.onnx", exported.stdout)
    built = run("build-engine", folder / "bundle", "--engines", folder / "engines")
    assert (built.status, built.stderr) == (0, "")
    assert built.stdout.startswith("target: cpu, the default")
    return folder


def test_an_unchanged_engine_is_not_built_again_unless_asked(workplace: Path) -> None:
    arguments = ("build-engine", workplace / "bundle", "--engines", workplace / "engines", "--json")
    assert [engine["built_now"] for engine in json.loads(run(*arguments).stdout)] == [False] * 3
    assert [engine["built_now"] for engine in json.loads(run(*arguments, "--no-cache").stdout)] == [True] * 3


@pytest.fixture(scope="module")
def report(workplace: Path, image_folder: Path, short_rounds: None) -> Path:
    """A report folder into which verify and benchmark wrote."""
    folder = workplace / "report"
    (workplace / "one-thread.toml").write_text(ONE_THREAD)
    engines = ("--target", workplace / "one-thread.toml", "--engines", workplace / "engines")
    assert run("build-engine", workplace / "bundle", *engines).status == 0
    common = (workplace / "bundle", *engines, "--report", folder)
    verified = run("verify", *common, "--images", image_folder, "--json")
    assert (verified.status, verified.stderr) == (0, "")
    assert json.loads(verified.stdout) == json.loads((folder / "verify.json").read_text())
    benchmarked = run("benchmark", *common, "--rounds", "2", "--roofline")
    assert (benchmarked.status, benchmarked.stderr) == (0, "")
    assert "Engines compared with PyTorch eager" in benchmarked.stdout
    assert "payloads equal" in benchmarked.stdout
    assert "Roofline: the times that this machine's limits allow" in benchmarked.stdout
    return folder


@pytest.fixture(scope="module")
def measured(report: Path) -> BenchmarkReport:
    return convert(BenchmarkReport, json.loads((report / "benchmark.json").read_bytes()))


def test_verify_reports_every_stage_and_passes(report: Path) -> None:
    found = json.loads((report / "verify.json").read_text())
    assert all(gate["passed"] for gate in found["gates"])
    assert {parity["stage"] for parity in found["logits"]} == {"classifier", "chain", "baseline"}
    assert [accuracy["groups"] for accuracy in found["accuracies"]] == [4, 4, 4]


def test_benchmark_times_every_candidate(report: Path) -> None:
    found = json.loads((report / "benchmark.json").read_text())
    timings = found["timings"]
    assert [(timing["subject"], timing["candidate"]) for timing in timings] == [
        ("encoder", "PyTorch eager"),
        ("encoder", "onnxruntime fp32 iteration-major"),
        ("encoder", "onnxruntime fp32 layer-major"),
        ("classifier", "PyTorch eager"),
        ("classifier", "onnxruntime fp32"),
        ("chain", "PyTorch eager"),
        ("chain", "onnxruntime fp32"),
        ("chain", "conventional, PyTorch eager"),
        ("chain", "conventional, onnxruntime"),
    ]
    assert all(0 < timing["latency_ms_p50"] <= timing["latency_ms_p99"] for timing in timings)
    first = 1 if found["reliable"] else None
    speedups = [timing["speedup"] for timing in timings if timing["candidate"] == "PyTorch eager"]
    assert speedups == [first, first, first]
    assert found["reliable"] is (found["unreliable_reasons"] == [])
    assert [entry["phase"] for entry in found["contention"]] == ["start", "encoder", "classifier", "chain"]


def test_the_engines_that_were_verified_are_timed_and_answer_right(
    report: Path, measured: BenchmarkReport, workplace: Path
) -> None:
    for timing in measured.timings:
        assert timing.answers is not None
        assert timing.answers.passed, timing.candidate
        assert timing.answers.runs == sum(letters.count("r") for letters in timing.inputs)
        assert [len(own) for own in timing.samples_ms] == [len(letters) for letters in timing.inputs]
        assert timing.warm_up is not None
        assert timing.warm_up.runs >= 6
    (encoder,) = (entry for entry in measured.timings if entry.is_target and entry.subject == "encoder")
    engines = json.loads((report / "verify.json").read_text())["engines"]
    (verified,) = (entry["engine_sha256"] for entry in engines if entry["stage"] == "encoder")
    files = {sha256_of(path) for path in (workplace / "engines").glob("*/encoder.fp32.onnx")}
    assert encoder.engines_sha256 == (verified,)
    assert verified in files
    assert measured.environment_before is not None
    assert measured.environment_after is not None
    assert measured.environment_before.versions["numpy"] == measured.environment_after.versions["numpy"]


def test_every_engine_but_pytorch_is_compared_with_the_limits(measured: BenchmarkReport) -> None:
    assert measured.roofline is not None
    found = {(engine.subject, engine.candidate): engine for engine in measured.roofline.engines}
    timed = {(timing.subject, timing.candidate): timing for timing in measured.timings}
    assert found.keys() == {key for key in timed if "PyTorch" not in key[1]}
    for key, engine in found.items():
        assert engine.latency_ms_p50 == timed[key].latency_ms_p50
        assert engine.bound_ms is not None
        assert engine.bound_ms == max(engine.matrix_ms, engine.least_memory_ms)
        assert 0 < engine.lowest_intensity < engine.highest_intensity


def test_rates_name_what_measured_them(measured: BenchmarkReport) -> None:
    assert measured.roofline is not None
    (fp32,) = measured.roofline.matrix_rates
    assert fp32.precision == "fp32"
    assert fp32.gmac_per_second > 0
    assert "NumPy" in fp32.measured_by or "OpenVINO" in fp32.measured_by
    assert "1 thread" in fp32.measured_by
    assert measured.roofline.bandwidth.gigabytes_per_second > 0
    assert measured.roofline.threads == 1


def test_the_work_of_the_chain_is_that_of_its_stages(measured: BenchmarkReport) -> None:
    assert measured.roofline is not None
    work = {engine.subject: engine for engine in measured.roofline.engines if engine.is_target}
    for field in ("multiply_accumulates", "least_bytes", "most_bytes"):
        stages = sum(getattr(work[subject], field) for subject in ("encoder", "classifier"))
        assert getattr(work["chain"], field) == stages


# Beside other work, the warm-up of a candidate would take its time limit, because the rate is not steady.
_SOON_TIMED = """
from ccr_deploy.benchmarking import interleaving
from ccr_deploy.benchmarking.worker import Worker
from ccr_deploy.cli import main
interleaving.ROUND_TARGET_SECONDS = 0.1
Worker.module = "tests.support.brief_process"
main()
"""


def benchmark_beside_other_work(workplace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``ccr-deploy benchmark`` in a separate process, whose children are not the other work."""
    target = workplace / "one-thread.toml"
    target.write_text(ONE_THREAD)
    command = [sys.executable, "-c", _SOON_TIMED, "benchmark", str(workplace / "bundle")]
    command += ["--target", str(target)]
    environment = {**os.environ, "CCR_DEPLOY_ENGINES": str(workplace / "engines")}
    with busy_machine():
        return subprocess.run(
            [*command, "--rounds", "2", *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class BusyReport:
    """What `benchmark` wrote and printed on a busy machine."""

    folder: Path
    stdout: str


@pytest.fixture(scope="module")
def busy_report(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> BusyReport:
    folder = tmp_path_factory.mktemp("busy")
    finished = benchmark_beside_other_work(workplace, "--report", str(folder))
    assert (finished.returncode, finished.stderr) == (0, "")
    return BusyReport(folder, finished.stdout)


def test_a_busy_machine_gives_no_speed_up_and_every_table_warns(busy_report: BusyReport) -> None:
    folder = busy_report.folder
    reason = r"other processes used \d+\.\d of \d+ cores while the encoder was timed"
    said = re.compile(rf"UNRELIABLE, no speed-ups:.*?{reason}")
    assert len(said.findall(" ".join(busy_report.stdout.split()))) == 1
    assert len(said.findall((folder / "report.md").read_text())) == 1
    page = (folder / "report.html").read_text()
    assert len(said.findall(page)) == 2  # at the top, and below the table
    assert "Speed-up of each candidate" not in page
    found = json.loads((folder / "benchmark.json").read_text())
    assert (found["schema_version"], found["reliable"]) == (BENCHMARK_SCHEMA_VERSION, False)
    assert any(re.fullmatch(reason, entry) for entry in found["unreliable_reasons"])
    assert all(timing["latency_ms_p50"] > 0 for timing in found["timings"])
    assert {(timing["speedup"], timing["speedup_interval"]) for timing in found["timings"]} == {(None, None)}


def test_an_idle_machine_may_be_required_before_the_start(workplace: Path, tmp_path: Path) -> None:
    refused = benchmark_beside_other_work(workplace, "--require-idle", "--report", str(tmp_path / "report"))
    assert refused.returncode == CHECK_FAILED
    assert re.fullmatch(
        r"ccr-deploy: error: the benchmark was not started: other processes used \d+\.\d of \d+ cores "
        r"before the start"
        r".*: stop other work on this machine and run the benchmark again\n",
        refused.stderr,
    )
    assert len(refused.stdout.splitlines()) == 1  # the target
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_idle_machine_may_be_required_until_the_end(
    options: tuple[str, ...], workplace: Path, busy_report: BusyReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is idle when it is watched before the start, and then no longer."""
    measured = convert(BenchmarkReport, json.loads((busy_report.folder / "benchmark.json").read_bytes()))
    later = structs.replace(
        measured,
        contention=measured.contention[1:],
        unreliable_reasons=tuple(
            reason for reason in measured.unreliable_reasons if "before the start" not in reason
        ),
    )
    monkeypatch.setattr(workflow, "benchmark_bundle", lambda *_, **__: later)
    failed = run("benchmark", workplace / "bundle", "--require-idle", *options)
    assert failed.status == CHECK_FAILED
    assert failed.error_line.startswith("ccr-deploy: error: the run is unreliable: other processes used ")
    if options:
        assert json.loads(failed.stdout)["reliable"] is False
    else:
        assert "UNRELIABLE, no speed-ups" in failed.stdout
    assert run("benchmark", workplace / "bundle", *options).status == 0


def children_of(parent: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if stat.read_text().rpartition(")")[2].split()[1] == str(parent):
                children.append(int(stat.parent.name))
    return children


def test_an_interrupted_benchmark_ends_its_processes_and_prints_one_line(workplace: Path) -> None:
    command = [sys.executable, "-m", "ccr_deploy", "benchmark", str(workplace / "bundle"), "--rounds", "1000"]
    environment = {**os.environ, "CCR_DEPLOY_ENGINES": str(workplace / "engines")}
    with started(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and len(workers := children_of(process.pid)) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert len(stderr.strip().splitlines()) == 1
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive := [worker for worker in workers if Path(f"/proc/{worker}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_the_report_is_one_self_contained_file_with_plots(report: Path) -> None:
    html = (report / "report.html").read_text()
    reliable = json.loads((report / "benchmark.json").read_text())["reliable"]
    plots = set(re.findall(r'<svg role="img" aria-label="([^"]+)"', html))
    assert {
        "Histogram of the margins of all bits and of flipped bits",
        "Top-1 accuracy with 95 % intervals",
    } <= plots
    assert ("Speed-up of each candidate over PyTorch eager" in plots) == reliable
    assert "Parity: all gates passed" in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "## Accuracy" in (report / "report.md").read_text()


@pytest.mark.parametrize("change", [{"contract_id": "0" * 16}, {"trained_iterations": [2, 3]}])
def test_a_report_leaves_out_results_of_another_bundle(
    change: dict[str, object], report: Path, tmp_path: Path
) -> None:
    shutil.copytree(report, tmp_path / "report")
    other = {**json.loads((report / "verify.json").read_text()), **change}
    (tmp_path / "report" / "verify.json").write_text(json.dumps(other))
    measured = convert(BenchmarkReport, json.loads((report / "benchmark.json").read_bytes()))
    assert add_to_folder(tmp_path / "report", measured) is None
    assert "Parity" not in (tmp_path / "report" / "report.html").read_text()


def test_a_result_of_another_version_in_a_report_s_folder_is_refused(report: Path, tmp_path: Path) -> None:
    shutil.copytree(report, tmp_path / "report")
    old = json.loads((report / "verify.json").read_text())
    del old["trained_iterations"]
    (tmp_path / "report" / "verify.json").write_text(json.dumps(old))
    measured = convert(BenchmarkReport, json.loads((report / "benchmark.json").read_bytes()))
    with pytest.raises(CcrDeployError, match=r"verify\.json: not a report of this version .*: remove it"):
        add_to_folder(tmp_path / "report", measured)


def test_classify_shows_class_and_bytes(workplace: Path, image_folder: Path) -> None:
    images = sorted(image_folder.rglob("*.png"))[:2]
    common = ("classify", *images, "--bundle", workplace / "bundle", "--engines", workplace / "engines")
    answers = json.loads(run(*common, "--json").stdout)
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    assert all(answer["answer"] in {"apple", "bread", "cheese", "dates", "egg"} for answer in answers)
    assert all(answer["payload_bytes"] == 12 + 26 for answer in answers)
    shown = run(*common)
    assert shown.status == 0
    assert "the same 48x32 pixels as a JPEG of quality 75" in shown.stdout


def test_describe_shows_the_papers_table() -> None:
    shown = run("describe")
    for total in ("20,293,224", "14,867,364", "14,581,796", "13,404,452"):
        assert total in shown.stdout
    models = {model["name"]: model for model in json.loads(run("describe", "--json").stdout)}
    layer1 = models["ccr-layer1"]
    assert layer1["encoder_macs_plain"] == pytest.approx(9.5e9, rel=0.01)
    assert layer1["encoder_macs"] == pytest.approx(7.5e9, rel=0.01)
    classifiers = [models[f"ccr-layer{number}"]["classifier_macs"] / 1e9 for number in (1, 2, 3)]
    assert classifiers == pytest.approx([1.48, 1.08, 0.66], abs=0.006)
    assert (layer1["code_bytes"], layer1["bits_per_pixel"]) == (784, 0.125)


def test_describe_shows_a_checkpoints_layers(tiny_checkpoint_file: Path) -> None:
    shown = run("describe", "--checkpoint", tiny_checkpoint_file)
    assert "encoder.cells.1.hidden_conv" in shown.stdout
    assert "classifier.sampling.conv1" in shown.stdout


def test_another_image_size_is_exported(tiny_checkpoint_file: Path, tmp_path: Path) -> None:
    exported = run(
        "export", "--checkpoint", tiny_checkpoint_file, "--image-size", 64, 32,
        "--schedule", "layer-major", "--json", tmp_path / "bundle",
    )  # fmt: skip
    manifest = json.loads(exported.stdout)
    assert (manifest["model"]["image_height"], manifest["model"]["image_width"]) == (64, 32)
    assert [(graph["precision"], graph["schedule"]) for graph in manifest["graphs"]] == [
        ("fp32", "layer-major"),
        ("fp16", "layer-major"),
        ("fp32", None),
        ("fp16", None),
    ]


def test_the_bundle_comes_from_the_environment(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCR_DEPLOY_BUNDLE", str(workplace / "bundle"))
    monkeypatch.setenv("CCR_DEPLOY_ENGINES", str(workplace / "engines"))
    assert run("verify").status == 0


def test_only_the_result_is_written_to_a_pipe(workplace: Path) -> None:
    """A real process: no progress, no escape sequences, JSON alone on stdout."""
    command = [sys.executable, "-m", "ccr_deploy", "verify", str(workplace / "bundle"), "--json"]
    environment = {**os.environ, "CCR_DEPLOY_ENGINES": str(workplace / "engines")}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stderr == ""
    assert "\x1b" not in finished.stdout
    assert json.loads(finished.stdout)["schema_version"] == SCHEMA_VERSION
