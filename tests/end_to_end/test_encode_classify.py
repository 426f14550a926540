"""`encode` and `classify`: images to payload files, and payload files to classes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from benchmarks.hosts.processes import PATIENCE_SECONDS, started
from ccr_deploy.backends.onnxruntime.cpu import OnnxRuntimeRunner
from ccr_deploy.codec.payload import decode_payload, encode_payload
from ccr_deploy.data.images import load_image
from ccr_deploy.engines.store import EngineStore
from ccr_deploy.runtime import Classifier, Encoder
from ccr_deploy.targets.schema import load_target, resolve
from ccr_deploy.workflow.batches import UNBOUND_BATCH
from tests.support.cli_runner import Outcome, run

if TYPE_CHECKING:
    import numpy.typing as npt

    from ccr_deploy.backends.runner import Arrays
    from ccr_deploy.bundle.reader import Bundle

BROKE, WRONG_USAGE, INTERRUPTED = 3, 2, 130
IMAGES = 37


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than several batches, in two sub-folders."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(3)
    for number in range(IMAGES):
        path = folder / ("day", "night")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return folder


class Tool:
    """The two commands with a bundle and its engines."""

    def __init__(self, bundle: Bundle, store: EngineStore) -> None:
        self.bundle, self.store = bundle, store
        self.options = ("--bundle", bundle.path, "--engines", store.path, "--target", "cpu")

    def encode(self, *arguments: object) -> Outcome:
        return run("encode", *arguments, *self.options)

    def classify(self, *arguments: object) -> Outcome:
        return run("classify", *arguments, *self.options)

    def payload(self, file: Path) -> bytes:
        contract = self.bundle.manifest.contract
        image = load_image(file, contract.preprocessing, contract.image_height, contract.image_width)
        with Encoder.load(self.bundle, "cpu", self.store) as encoder:
            return encoder.encode(image[None])[0]


@pytest.fixture(scope="module")
def tool(tiny_bundle: Bundle, built_store: EngineStore) -> Tool:
    return Tool(tiny_bundle, built_store)


def test_an_image_becomes_the_named_file(tool: Tool, images: Path, tmp_path: Path) -> None:
    image = images / "day" / "000.png"
    outcome = tool.encode(image, "-o", tmp_path / "one.ccr")
    assert (outcome.status, outcome.stderr) == (0, "")
    payload = (tmp_path / "one.ccr").read_bytes()
    assert payload == tool.payload(image)
    assert f"{tmp_path / 'one.ccr'}, {len(payload)} bytes" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["one.ccr"]


def test_an_image_is_written_into_an_existing_folder(tool: Tool, images: Path, tmp_path: Path) -> None:
    assert tool.encode(images / "day" / "000.png", "-o", tmp_path).status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["000.ccr"]


def test_a_folder_is_encoded_to_a_folder_with_the_same_classes(
    tool: Tool, images: Path, tmp_path: Path
) -> None:
    encoded = tool.encode(images, "-o", tmp_path / "new" / "payloads", "--json")
    assert (encoded.status, encoded.stderr) == (0, "")
    written = json.loads(encoded.stdout)
    names = {path.relative_to(images).with_suffix(".ccr") for path in images.rglob("*.png")}
    folder = tmp_path / "new" / "payloads"
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == names
    assert {entry["payload"] for entry in written} == {str(folder / name) for name in names}
    assert {entry["payload_bytes"] for entry in written} == {12 + 26}
    for entry in written[:: UNBOUND_BATCH - 1]:
        assert Path(entry["payload"]).read_bytes() == tool.payload(Path(entry["source"]))

    from_images = json.loads(tool.classify(images, "--json").stdout)
    from_payloads = json.loads(tool.classify(folder, "--json").stdout)
    assert [entry["label"] for entry in from_payloads] == [entry["label"] for entry in from_images]
    assert all(entry["payload"] and entry["image"] is entry["jpeg_bytes"] is None for entry in from_payloads)
    assert all(entry["image"] and entry["payload"] is None for entry in from_images)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images or payloads in each run of the engines."""
    seen: list[int] = []
    original = OnnxRuntimeRunner.infer

    def counted(runner: OnnxRuntimeRunner, feeds: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        seen.extend(len(array) for array in feeds.values())
        return original(runner, feeds)

    monkeypatch.setattr(OnnxRuntimeRunner, "infer", counted)
    return seen


@pytest.mark.parametrize("asked", [None, 1, 5, 100])
def test_an_engine_never_receives_more_than_a_batch(
    asked: int | None, tool: Tool, images: Path, tmp_path: Path, batches: list[int]
) -> None:
    options = ("--batch", asked) if asked else ()
    size = min(asked or UNBOUND_BATCH, IMAGES)
    written = json.loads(tool.encode(images, "-o", tmp_path, "--json", *options).stdout)
    full, rest = divmod(IMAGES, size)
    expected = [size] * full + [rest] * (rest > 0)
    assert batches == expected
    batches.clear()
    answers = json.loads(tool.classify(images, "--json", *options).stdout)
    assert batches == [number for number in expected for _ in ("encoder", "classifier")]
    batches.clear()
    tool.classify(tmp_path, "--json", *options)
    assert batches == expected
    assert [entry["source"] for entry in written] == [entry["image"] for entry in answers]


def test_batches_change_neither_payloads_nor_classes_nor_their_order(
    tool: Tool, images: Path, tmp_path: Path
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    tool.encode(images, "-o", one, "--batch", 1)
    tool.encode(images, "-o", many, "--batch", 32)
    names = sorted(path.relative_to(one) for path in one.rglob("*.ccr"))
    assert len(names) == IMAGES
    assert [(one / name).read_bytes() for name in names] == [(many / name).read_bytes() for name in names]
    single, together = (
        json.loads(tool.classify(images, "--json", "--batch", size).stdout) for size in (1, 32)
    )
    assert [(entry["image"], entry["label"]) for entry in single] == [
        (entry["image"], entry["label"]) for entry in together
    ]


def test_the_payloads_of_all_shards_are_those_of_one_run(tool: Tool, images: Path, tmp_path: Path) -> None:
    one, shards = tmp_path / "one", tmp_path / "shards"
    tool.encode(images, "-o", one, "--batch", 5)
    counts = []
    for index in range(3):
        options = ("--batch", 5, "--shard", f"{index}/3", "--json")
        counts.append(len(json.loads(tool.encode(images, "-o", shards, *options).stdout)))
    names = sorted(path.relative_to(one) for path in one.rglob("*.ccr"))
    assert sum(counts) == len(names) == IMAGES
    assert all(counts)
    assert [(one / name).read_bytes() for name in names] == [(shards / name).read_bytes() for name in names]
    refused = tool.encode("--video", 0, "-o", shards, "--shard", "0/3")
    assert "--shard divides images" in refused.stderr


def test_images_are_read_batch_by_batch(tool: Tool, images: Path, tmp_path: Path) -> None:
    """Payloads of earlier batches are written before a damaged image is opened."""
    shutil.copytree(images / "day", tmp_path / "in")
    last = max((tmp_path / "in").iterdir())
    last.write_bytes(b"no image")
    outcome = tool.encode(tmp_path / "in", "-o", tmp_path / "out", "--batch", 2)
    assert (outcome.status, outcome.stdout.count(" bytes")) == (BROKE, 18)
    assert len(list((tmp_path / "out").iterdir())) == 18


@pytest.mark.parametrize("command", ["encode", "classify"])
def test_a_batch_above_the_engines_maximum_is_refused(
    command: str, tool: Tool, images: Path, tmp_path: Path
) -> None:
    """This machine cannot build for a Jetson: the build is only recorded."""
    shutil.copytree(tool.store.path, tmp_path / "engines")
    jetson = load_target("jetson-orin-jp6")
    built = {stage: resolve(jetson, stage) for stage in ("encoder", "classifier")}
    EngineStore(tmp_path / "engines").choose(tool.bundle, "jetson-orin-jp6", built)
    output = ("-o", tmp_path / "out") if command == "encode" else ()
    outcome = run(
        command, images, *output, "--bundle", tool.bundle.path, "--engines", tmp_path / "engines",
        "--target", "jetson-orin-jp6", "--batch", 2,
    )  # fmt: skip
    assert outcome.status == WRONG_USAGE
    assert outcome.error_line.endswith(
        "--batch 2: the maximum batch of the encoder engine is 1: use a smaller --batch"
    )
    assert not (tmp_path / "out").exists()


def test_images_and_payloads_are_classified_in_the_given_order(
    tool: Tool, images: Path, tmp_path: Path
) -> None:
    day, night = images / "day" / "000.png", images / "night" / "001.png"
    tool.encode(day, "-o", tmp_path / "day.ccr")
    shutil.copy(tmp_path / "day.ccr", tmp_path / "payload-of-another-name")
    named = [night, tmp_path / "payload-of-another-name", day, tmp_path / "day.ccr"]
    answers = json.loads(tool.classify(*named, "--json").stdout)
    assert [entry["image"] or entry["payload"] for entry in answers] == [str(path) for path in named]
    assert answers[1]["label"] == answers[2]["label"] == answers[3]["label"]
    shown = tool.classify(*named)
    assert (shown.status, shown.stderr) == (0, "")
    assert "day.ccr" in shown.stdout


def test_payloads_alone_need_no_encoder(tool: Tool, images: Path, tmp_path: Path) -> None:
    """A server has only the classifier's engine."""
    tool.encode(images / "day" / "000.png", "-o", tmp_path / "one.ccr")
    shutil.copytree(tool.store.path, tmp_path / "engines")
    for engine in (tmp_path / "engines").glob("*/encoder.*"):
        engine.unlink()
    options = ("--bundle", tool.bundle.path, "--engines", tmp_path / "engines", "--target", "cpu")
    assert run("classify", tmp_path / "one.ccr", *options).status == 0
    outcome = run("classify", images, *options)
    assert outcome.status == BROKE
    assert "encoder.fp32.onnx: no such file" in outcome.error_line


def test_only_the_bundles_manifest_is_needed(tool: Tool, images: Path, tmp_path: Path) -> None:
    shutil.copy(tool.bundle.path / "manifest.json", tmp_path)
    options = ("--bundle", tmp_path, "--engines", tool.store.path, "--target", "cpu")
    assert run("encode", images / "day" / "000.png", "-o", tmp_path / "one.ccr", *options).status == 0
    assert run("classify", tmp_path / "one.ccr", *options).status == 0


@pytest.mark.parametrize("command", ["encode", "classify"])
def test_a_missing_file(command: str, tool: Tool, images: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "out") if command == "encode" else ()
    outcome = getattr(tool, command)(images / "day" / "000.png", tmp_path / "none.png", *output)
    assert outcome.status == BROKE
    assert "none.png: no such file" in outcome.error_line
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_an_image(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    outcome = tool.encode(tmp_path / "notes.png", "-o", tmp_path / "one.ccr")
    assert outcome.status == BROKE
    assert "notes.png: not an image" in outcome.error_line
    assert not (tmp_path / "one.ccr").exists()


def test_a_folder_without_images(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = tool.encode(tmp_path / "empty", "-o", tmp_path / "out")
    assert outcome.status == BROKE
    assert "empty: contains no images" in outcome.error_line
    assert "contains no images or payloads" in tool.classify(tmp_path / "empty").error_line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda payload: payload[:-1], "37 bytes, but its header says 38"),
        (lambda payload: payload[:3], "not a payload"),
        (lambda payload: payload[:20], "truncated"),
        (lambda _: b"", "not a payload"),
        (lambda payload: payload[:30] + bytes([payload[30] ^ 1]) + payload[31:], "damaged"),
        (lambda payload: b"x" + payload[1:], "not a payload"),
    ],
)
def test_a_damaged_payload(damage, message: str, tool: Tool, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.ccr"
    path.write_bytes(damage(tool.payload(images / "day" / "000.png")))
    outcome = tool.classify(path)
    assert outcome.status == BROKE
    assert f"{path}: {message}" in outcome.error_line


def test_a_payload_of_another_contract(tool: Tool, tmp_path: Path) -> None:
    other = replace(tool.bundle.manifest.contract, encoder_digest="0" * 64)
    path = tmp_path / "foreign.ccr"
    path.write_bytes(encode_payload(np.zeros(other.code_bytes, np.uint8), other))
    outcome = tool.classify(path)
    assert outcome.status == BROKE
    assert f"{path}: contract mismatch: payload {other.contract_id}" in outcome.error_line
    assert tool.bundle.manifest.contract_id in outcome.error_line


def test_an_output_that_cannot_be_written(tool: Tool, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    outcome = tool.encode(images / "day", "-o", tmp_path / "file" / "payloads")
    assert outcome.status == BROKE
    assert "cannot be written" in outcome.error_line
    outcome = tool.encode(images / "day", "-o", tmp_path / "file")
    assert outcome.status == WRONG_USAGE
    assert "is one file: several images or a video need a folder" in outcome.stderr
    assert (tmp_path / "file").read_text() == "no folder"


def test_two_images_of_one_name(tool: Tool, images: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / "000.png"
    twin.parent.mkdir()
    shutil.copy(images / "day" / "000.png", twin)
    outcome = tool.encode(images / "day" / "000.png", twin, "-o", tmp_path / "out")
    assert outcome.status == WRONG_USAGE
    assert "have the same payload path" in outcome.error_line
    assert not (tmp_path / "out").exists()


def test_an_image_is_not_replaced_by_its_payload(tool: Tool, images: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo.png"
    shutil.copy(images / "day" / "000.png", image)
    before = image.read_bytes()
    outcome = tool.encode(image, "-o", image)
    assert outcome.status == WRONG_USAGE
    assert "is the image itself" in outcome.error_line
    assert image.read_bytes() == before


@pytest.mark.parametrize("arguments", [(), ("photo.png", "--video", "clip.avi")])
def test_either_images_or_a_video(arguments: tuple[str, ...], tool: Tool, tmp_path: Path) -> None:
    outcome = tool.encode(*arguments, "-o", tmp_path / "out")
    assert outcome.status == WRONG_USAGE
    assert "pass either images and folders, or a video" in outcome.stderr


def test_engines_that_were_not_built(tool: Tool, images: Path, tmp_path: Path) -> None:
    arguments = ("--bundle", tool.bundle.path, "--engines", tmp_path / "none", "--target", "cpu")
    outcome = run("encode", images, "-o", tmp_path / "out", *arguments)
    assert outcome.status == WRONG_USAGE
    assert "no encoder engine" in outcome.error_line
    assert f"ccr-deploy build-engine {tool.bundle.path} --target cpu" in outcome.error_line


def command_line(tool: Tool, *arguments: object, limit_bytes: int | None = None) -> list[str]:
    """``ccr-deploy encode`` in a separate process with a limit on file sizes."""
    limit = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.dont_write_bytecode = True  # or it stays behind, cut short\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
    )
    program = f"{limit if limit_bytes else ''}from ccr_deploy.cli import main\nmain()\n"
    return [sys.executable, "-c", program, "encode", *map(str, (*arguments, *tool.options))]


def test_a_full_disk_leaves_no_incomplete_payload(tool: Tool, images: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: every payload is larger."""
    output = tmp_path / "out"
    done = subprocess.run(
        command_line(tool, images, "-o", output, limit_bytes=20),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == BROKE
    assert "000.ccr: cannot be written (File too large)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path for path in output.rglob("*") if path.is_file()] == []


def test_an_interrupted_command_leaves_whole_payloads_alone(tool: Tool, images: Path, tmp_path: Path) -> None:
    for number in range(40):
        shutil.copytree(images / "day", tmp_path / "many" / str(number))
    output = tmp_path / "out"
    command = command_line(tool, tmp_path / "many", "-o", output)
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(output.rglob("*.ccr")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == INTERRUPTED
    assert len(stderr.strip().splitlines()) == 1
    files = [path for path in output.rglob("*") if path.is_file()]
    assert 0 < len(files) < 40 * len(list((images / "day").iterdir()))
    for path in files:
        assert path.suffix == ".ccr"
        decode_payload(path.read_bytes(), tool.bundle.manifest.contract)


def test_the_frames_of_a_video_are_encoded_as_images_are(tool: Tool, tmp_path: Path) -> None:
    opencv = pytest.importorskip("cv2", reason="OpenCV (the extra video) is not installed")
    clip = tmp_path / "clip.avi"
    writer = opencv.VideoWriter(str(clip), opencv.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    generator = np.random.default_rng(4)
    for _ in range(8):
        writer.write(generator.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    outcome = tool.encode("--video", clip, "--every", 3, "-o", tmp_path / "out", "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    names = [Path(entry["payload"]).name for entry in json.loads(outcome.stdout)]
    assert names == ["frame-00000000.ccr", "frame-00000003.ccr", "frame-00000006.ccr"]
    capture = opencv.VideoCapture(str(clip))
    for number in range(8):
        _, frame = capture.read()
        if number % 3 == 0:
            Image.fromarray(frame[:, :, ::-1]).save(tmp_path / "frame.png")
            written = (tmp_path / "out" / f"frame-{number:08}.ccr").read_bytes()
            assert written == tool.payload(tmp_path / "frame.png")
    capture.release()
    with Classifier.load(tool.bundle, "cpu", tool.store) as classifier:
        assert classifier.classify([written])
    few = tool.encode("--video", clip, "--frames", 2, "-o", tmp_path / "few")
    assert (few.status, len(few.stdout.splitlines())) == (0, 3)
    assert len(list((tmp_path / "few").iterdir())) == 2
