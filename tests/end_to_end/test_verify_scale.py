"""`verify` on many images: interrupted, divided among machines, twice, and its memory."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.verification.answers import BATCH
from tests.support.cli_runner import run

if TYPE_CHECKING:
    from ccr_deploy.bundle.reader import Bundle

MANY = 2_000
FEW = 10 * BATCH + 2
FIRST, SECOND = "verify-part-0-of-2.jsonl", "verify-part-1-of-2.jsonl"
WRONG_USAGE, BROKE, INTERRUPTED = 2, 3, 130
MEASURED = """
import resource, sys
from ccr_deploy.cli import main
try:
    main()
finally:
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def image_folder(folder: Path, count: int) -> Path:
    """A folder of `count` images in folders of classes: links to 40 different files."""
    generator = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(40):
        pixels = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 32), Image.Resampling.BILINEAR).save(originals / f"{number}.png")
    for name in ("apple", "bread", "cheese"):
        (folder / "images" / name).mkdir(parents=True)
    for number in range(count):
        name = ("apple", "bread", "cheese")[number % 3]
        os.link(originals / f"{number % 40}.png", folder / "images" / name / f"{number:05}.png")
    return folder / "images"


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("many"), MANY)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture
def store(built_store: EngineStore, tmp_path: Path) -> EngineStore:
    """A store with the engines and no answers."""
    ignored = shutil.ignore_patterns("answers", "verify")
    return EngineStore(Path(shutil.copytree(built_store.path, tmp_path / "engines", ignore=ignored)))


@pytest.fixture
def verify(tiny_bundle: Bundle, store: EngineStore):
    def arguments(*options: object) -> list[str]:
        where = ("--engines", store.path, "--target", "cpu", "--fp32")
        return [str(part) for part in ("verify", tiny_bundle.path, *where, *options)]

    return arguments


def result_of(arguments: list[str]) -> dict:
    outcome = run(*arguments)
    assert (outcome.status, outcome.stderr) == (0, "")
    return json.loads(outcome.stdout)


def wait_for_lines(folder: Path, lines: int) -> Path:
    """Wait until a part file in the folder has so many lines, and return it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for path in folder.glob("*.jsonl"):
            if path.read_bytes().count(b"\n") >= lines:
                return path
        time.sleep(0.01)
    raise TimeoutError(f"{folder}: no part file with {lines} lines")


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_run_is_resumed_with_the_same_result(verify, store, many_images, sent, status):
    whole = verify("--images", many_images, "--json")
    command = [sys.executable, "-m", "ccr_deploy", *whole]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        part = wait_for_lines(store.path / "verify", 5)
        process.send_signal(sent)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == status
    assert 5 <= part.read_bytes().count(b"\n") < 1 + MANY // BATCH
    resumed = result_of(whole)
    assert not part.exists()
    assert resumed == result_of(whole)


@pytest.fixture
def interrupted(verify, store, tmp_path) -> tuple[Path, Path]:
    """A folder of images, and the part file of a run that failed at one of them, which is whole again."""
    images = image_folder(tmp_path / "interrupted", FEW)
    path = sorted(images.rglob("*.png"))[FEW // 2]
    content = path.read_bytes()
    path.unlink()  # it is a link to a file that others are links to as well
    path.write_bytes(content[:50])
    outcome = run(*verify("--images", images, "--json"))
    assert outcome.status == BROKE
    assert path.name in outcome.error_line
    path.write_bytes(content)
    (part,) = (store.path / "verify").iterdir()
    assert part.read_bytes().count(b"\n") == 1 + FEW // 2 // BATCH
    return images, part


def test_batches_of_the_interrupted_run_are_not_run_again(verify, interrupted) -> None:
    images, part = interrupted
    lines = part.read_text().splitlines(keepends=True)
    batch = json.loads(lines[2])
    logits = next(entry for entry in batch["measures"] if entry["table"] == "logits")
    logits["numbers"]["max_difference"][0] = 123.0  # a value that no run would find
    # The end of the last line is missing, as after a full disk.
    part.write_text("".join([*lines[:2], json.dumps(batch) + "\n", *lines[3:-1], lines[-1][:-20]]))
    found = json.loads(run(*verify("--images", images, "--json")).stdout)
    assert max(entry["max_difference"] for entry in found["logits"]) == 123.0


def test_a_changed_image_is_run_again(verify, interrupted) -> None:
    images, part = interrupted
    first = sorted(images.rglob("*.png"))[0]
    first.unlink()
    Image.new("RGB", (48, 32), "green").save(first)
    resumed = result_of(verify("--images", images, "--json"))
    assert not part.exists()
    assert resumed == result_of(verify("--images", images, "--json"))


def test_another_run_starts_again(verify, interrupted) -> None:
    images, part = interrupted
    assert result_of(verify("--images", images, "--samples", 12, "--json"))["image_count"] == 12
    assert not part.exists()


def test_a_second_run_at_once_gives_the_same_result(verify, interrupted) -> None:
    images, part = interrupted
    before = part.read_bytes()
    with part.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as the first run does
        second = result_of(verify("--images", images, "--json"))
    assert part.read_bytes() == before
    assert second == result_of(verify("--images", images, "--json"))


@pytest.mark.parametrize("shards", [2, 3])
def test_merged_shards_are_one_run(verify, tiny_bundle, images, tmp_path, shards) -> None:
    report = tmp_path / "report"
    for index in reversed(range(shards)):
        outcome = run(*verify("--images", images, "--report", report, "--shard", f"{index}/{shards}"))
        assert (outcome.status, outcome.stderr) == (0, "")
    device = tmp_path / "bundle"
    device.mkdir()
    shutil.copy(tiny_bundle.path / "manifest.json", device)  # merging needs nothing else of it
    merged = run("verify", device, "--merge", "--report", report, "--json")
    assert (merged.status, merged.stderr) == (0, "")
    one_run = result_of(verify("--images", images, "--json"))
    assert json.loads(merged.stdout) == {**one_run, "bundle": str(device)}
    assert (report / "report.html").exists()


def test_more_shards_than_batches_are_merged(verify, tiny_bundle, images, tmp_path) -> None:
    report, few = tmp_path / "report", ("--images", images, "--samples", BATCH + 1)
    for index in range(3):
        assert run(*verify(*few, "--report", report, "--shard", f"{index}/3")).status == 0
    merged = json.loads(run("verify", tiny_bundle.path, "--merge", "--report", report, "--json").stdout)
    assert merged == json.loads(run(*verify(*few, "--json")).stdout)


def test_a_shard_is_continued(verify, store, images, tmp_path) -> None:
    shard = verify("--images", images, "--report", tmp_path, "--shard", "1/2")
    assert run(*shard).status == 0
    part = tmp_path / "verify-part-1-of-2.jsonl"
    complete = part.read_bytes()
    first, *_ = complete.splitlines(keepends=True)
    part.write_bytes(complete[: len(first) + len(complete) // 3])
    assert run(*shard).status == 0
    assert part.read_bytes() == complete
    assert not (store.path / "verify").exists()


def test_a_shard_that_another_command_runs_is_refused_before_engines_are_loaded(
    verify, images, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(EngineFactory, "load_all", lambda *_: pytest.fail("engines were loaded"))
    part = tmp_path / "verify-part-1-of-2.jsonl"
    part.touch()
    with part.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = run(*verify("--images", images, "--report", tmp_path, "--shard", "1/2"))
    assert outcome.status == BROKE
    assert "1-of-2.jsonl: another command is writing to it" in outcome.error_line


@pytest.fixture(scope="module")
def both_parts(tiny_bundle, built_store, images, tmp_path_factory) -> Path:
    report = tmp_path_factory.mktemp("parts")
    where = ("--engines", built_store.path, "--target", "cpu", "--fp32", "--images", images)
    for index in range(2):
        shard = ("--report", report, "--shard", f"{index}/2")
        assert run("verify", tiny_bundle.path, *where, *shard).status == 0
    return report


@pytest.fixture
def parts(both_parts, tmp_path) -> Path:
    """A report folder with both parts."""
    return Path(shutil.copytree(both_parts, tmp_path / "report"))


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def use_the_first_twice(parts: Path) -> None:
    shutil.copy(parts / FIRST, parts / SECOND)


def cut_the_second(parts: Path) -> None:
    (parts / SECOND).write_bytes((parts / SECOND).read_bytes()[:-9])


def make_both_of_another_model(parts: Path) -> None:
    for name in (FIRST, SECOND):
        replace_in(parts / name, '"contract_id":"', '"contract_id":"0')


@pytest.mark.parametrize(
    ("spoil", "status", "message"),
    [
        (lambda parts: (parts / SECOND).unlink(), WRONG_USAGE, "report: shard 1/2 is missing"),
        (use_the_first_twice, WRONG_USAGE, f"{SECOND}: shard 0/2, as {FIRST} is"),
        (cut_the_second, BROKE, f"{SECOND}: not complete"),
        (lambda parts: (parts / FIRST).write_text("no\n"), BROKE, f"{FIRST}: not a part"),
        (
            lambda parts: replace_in(parts / SECOND, '"target":"cpu"', '"target":"l4"'),
            WRONG_USAGE,
            f"{SECOND}: target is l4, that of {FIRST} is cpu",
        ),
        (
            lambda parts: replace_in(parts / SECOND, '"precision":"fp32"', '"precision":"fp16"'),
            WRONG_USAGE,
            f"{SECOND}: engines[0].precision is fp16, that of {FIRST} is fp32",
        ),
        (
            lambda parts: replace_in(parts / SECOND, '"number":3', '"number":5'),
            BROKE,
            f"{SECOND}: damaged (batch 5, expected 3",
        ),
        (
            lambda parts: replace_in(parts / SECOND, '"flips":[', '"flips":[0,'),
            BROKE,
            f"{SECOND}: damaged (codes flips",
        ),
        (make_both_of_another_model, WRONG_USAGE, f"{FIRST}: contract_id is 0"),
    ],
)
def test_missing_foreign_and_damaged_parts_are_refused(parts, tiny_bundle, spoil, status, message) -> None:
    spoil(parts)
    outcome = run("verify", tiny_bundle.path, "--merge", "--report", parts)
    assert outcome.status == status
    assert message in outcome.error_line
    assert not (parts / "verify.json").exists()


def test_a_file_of_another_program_is_not_a_part(verify, images, tmp_path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "verify-part-0-of-2.jsonl").write_text("my notes\n")
    outcome = run(*verify("--images", images, "--report", report, "--shard", "0/2"))
    assert outcome.status == WRONG_USAGE
    assert "did not write" in outcome.error_line
    assert (report / "verify-part-0-of-2.jsonl").read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "0/2"), "--shard needs --report DIR"),
        (("--shard", "2/2", "--report", "r"), "'2/2' is not I/N"),
        (("--shard", "0/2", "--report", "r", "--golden", "g"), "--golden does not accept --shard"),
        (("--merge",), "--merge does not accept --target"),
    ],
)
def test_options_that_do_not_fit_are_refused(verify, options, message) -> None:
    outcome = run(*verify(*options))
    assert outcome.status == WRONG_USAGE
    assert message in outcome.stderr


def test_the_second_run_needs_neither_pytorch_nor_the_graphs(verify, store, images, tmp_path) -> None:
    few = verify("--images", images, "--samples", 20, "--json")
    first = run(*few)
    (tmp_path / "torch.py").write_text("raise ImportError('not for cached answers')")
    command = [sys.executable, "-m", "ccr_deploy", *few]
    second = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stderr) == (0, "")
    assert json.loads(second.stdout) == json.loads(first.stdout)


def test_damaged_answers_are_computed_again(verify, store, images) -> None:
    few = verify("--images", images, "--samples", 20, "--json")
    first = run(*few)
    answers = sorted((store.path / "answers").glob("*/*"))
    assert answers
    for number, path in enumerate(answers):
        content = bytearray(path.read_bytes())
        content[-1 - number % 40] ^= 1
        path.write_bytes(content[: len(content) - number % 3])
    second = run(*few)
    assert (second.status, second.stdout, second.stderr) == (0, first.stdout, "")


def peak_kib(arguments: list[str]) -> int:
    """The peak memory of a command, in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def test_memory_does_not_grow_with_the_images(verify, many_images) -> None:
    few = peak_kib(verify("--images", many_images, "--samples", MANY // 10, "--json"))
    many = peak_kib(verify("--images", many_images, "--json"))
    assert many <= 1.1 * few


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_up_to_50_000_images(verify, tmp_path) -> None:
    images = image_folder(tmp_path / "most", 50_000)
    many = peak_kib(verify("--images", images, "--samples", MANY, "--json"))
    most = peak_kib(verify("--images", images, "--json"))
    assert most <= 1.1 * many
