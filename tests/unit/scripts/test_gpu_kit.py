"""The GPU kit's parts, packages, device code and commands, without building a kit."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import click
import pytest

from scripts.gpu_kit import run as runner
from scripts.gpu_kit.device_code import keep_compute_capability, only_device_code_of
from scripts.gpu_kit.install import KitError, check_machine, checked_parts, torchvision_advice, unpack
from scripts.gpu_kit.make import check_kit_folder, constraints, pack, requirements, split

ROOT = Path(__file__).parents[3]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PART = 4096


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A packed kit of small parts."""
    folder = tmp_path / "kit"
    (folder / "content" / "bundles").mkdir(parents=True)
    (folder / "content" / "kit.json").write_text(json.dumps({"torch": "2.11.0"}))
    (folder / "content" / "bundles" / "weights").write_bytes(bytes(range(256)) * 100)
    pack(folder, PART)
    return folder


def test_parts_are_joined_to_the_same_content(kit: Path, tmp_path: Path) -> None:
    parts = checked_parts(kit)
    assert len(parts) > 5
    assert all(part.stat().st_size <= PART for part in parts)
    place = tmp_path / "unpacked"
    place.mkdir()
    unpack(parts, place)
    found = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    content = kit / "content"
    assert found == {
        path.relative_to(content): path.read_bytes() for path in content.rglob("*") if path.is_file()
    }


def test_the_order_of_more_than_nine_parts_is_that_of_their_names(tmp_path: Path) -> None:
    archive = tmp_path / "kit.tar"
    archive.write_bytes(bytes(range(12)))
    parts = split(archive, 1)
    assert sorted(parts) == parts
    assert b"".join(part.read_bytes() for part in parts) == bytes(range(12))
    assert not archive.exists()


def test_sha256sum_accepts_the_list(kit: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=kit, capture_output=True, check=False).returncode == 0


def test_a_missing_part_is_one_line(kit: Path) -> None:
    (kit / "kit.tar.part-02").unlink()
    with pytest.raises(KitError, match=r"kit\.tar\.part-02: no such file: copy every file") as raised:
        checked_parts(kit)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:]])
def test_a_damaged_part_is_named(kit: Path, damage) -> None:
    part = kit / "kit.tar.part-03"
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(KitError, match=r"kit\.tar\.part-03: damaged or changed: its SHA-256 is \w{12}…"):
        checked_parts(kit)


def test_a_truncated_list_is_refused(kit: Path) -> None:
    sums = kit / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(KitError, match=r"perhaps truncated, does not list run\.py"):
        checked_parts(kit)
    sums.unlink()
    with pytest.raises(KitError, match="SHA256SUMS: no such file"):
        checked_parts(kit)


def test_another_python_is_refused_before_anything_is_read() -> None:
    check_machine((3, 12), "Linux", "x86_64")
    for python, system, processor in (
        ((3, 11), "Linux", "x86_64"),
        ((3, 12), "Linux", "aarch64"),
        ((3, 12), "Darwin", "x86_64"),
    ):
        with pytest.raises(KitError, match=r"the kit is for Python 3\.12 on Linux x86_64, this is"):
            check_machine(python, system, processor)


def test_torchvision_that_is_there_needs_no_advice(kit: Path) -> None:
    """PyTorch and torchvision are installed here."""
    (kit / "content" / "kit.json").write_text(json.dumps({"torch": "1.0.0"}))
    assert torchvision_advice(kit / "content") == ""


def test_the_packages_are_for_the_gpu_and_leave_pytorch_and_its_cuda_to_the_machine() -> None:
    wanted = requirements(PROJECT, with_rtx=True)
    names = {line.partition(">")[0].partition(";")[0].partition("=")[0].strip() for line in wanted}
    assert {
        "onnxruntime-gpu",
        "tensorrt-rtx",
        "polygraphy",
        "cuda-python",
        "msgspec",
        "pytest",
        "pip",
    } <= names
    assert not any("[" in line for line in wanted)  # onnxruntime-gpu[cuda,cudnn] would bring CUDA's libraries
    assert not {name for name in names if name.startswith(("torch", "nvidia"))}


def test_tensorrt_rtx_is_left_out_alone() -> None:
    """The rest of its extra is what the TensorRT backend needs."""
    left_out = {*requirements(PROJECT, with_rtx=True)} - {*requirements(PROJECT, with_rtx=False)}
    assert [line.partition(">")[0] for line in left_out] == ["tensorrt-rtx"]


def test_the_workstation_does_not_hold_the_version_of_onnxruntime() -> None:
    assert constraints("numpy==2.4\nonnxruntime-gpu==1.24.4 ; x\nonnxruntime==1.24.4\n") == ["numpy==2.4"]


def test_a_folder_with_other_files_is_not_replaced(kit: Path, tmp_path: Path) -> None:
    check_kit_folder(kit)
    check_kit_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_kit_folder(tmp_path / "empty")
    with pytest.raises(click.ClickException, match="holds other files: choose another folder"):
        check_kit_folder(tmp_path)


def fatbin(codes: list[tuple[int, int, bytes]]) -> bytes:
    """Return a fat binary of device codes, each with its kind, SM version and bytes."""
    entries = b"".join(
        struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(code), 0, 0, 0, 0, sm).ljust(64, b"\0") + code
        for kind, sm, code in codes
    )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def library(section: bytes, name: bytes = b".nv_fatbin") -> bytes:
    """Return a 64-bit ELF file with one section besides that of the names."""
    names = b"\0" + name + b"\0.shstrtab\0"
    start = 64 + len(section)
    rows = [(0, 0, 0), (1, 64, len(section)), (len(name) + 2, start, len(names))]
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, offset, size, 0, 0, 0, 0) for at, offset, size in rows
    )
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x28, start + len(names))
    struct.pack_into("<HHH", header, 0x3A, 64, len(rows), 2)
    return bytes(header) + section + names + table


FOR_90, FOR_80, PTX_90 = b"nine".ljust(32, b"9"), b"eight".ljust(32, b"8"), b"ptx".ljust(32, b"p")


def test_only_the_device_code_of_one_compute_capability_remains() -> None:
    # Fat binaries of a section are aligned to 8 bytes, with zeros between them.
    section = (
        fatbin([(2, 80, FOR_80), (2, 90, FOR_90)]) + bytes(8) + fatbin([(1, 90, PTX_90), (2, 90, FOR_90)])
    )
    whole = library(section)
    smaller = only_device_code_of(whole, "9.0")
    assert len(smaller) == len(whole)
    assert (smaller.count(FOR_90), smaller.count(FOR_80), smaller.count(PTX_90)) == (2, 0, 0)
    changed = [at for at, (old, new) in enumerate(zip(whole, smaller, strict=True)) if old != new]
    assert len(changed) == len(FOR_80) + len(PTX_90)


@pytest.mark.parametrize(
    "content",
    [library(fatbin([(2, 80, FOR_80), (1, 90, PTX_90)])), library(fatbin([(2, 80, FOR_80)]), b".text")],
)
def test_a_library_without_device_code_for_it_is_left_as_it_is(content: bytes) -> None:
    assert only_device_code_of(content, "9.0") == content


def test_a_smaller_wheel_lists_its_files_with_their_new_hashes(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    whole = library(fatbin([(2, 80, FOR_80), (2, 90, FOR_90)]))
    with ZipFile(wheel, "w") as file:
        file.writestr("a/__init__.py", "x = 1\n")
        file.writestr("a/liba.so.1", whole)
        file.writestr("a-1.dist-info/RECORD", "outdated")
    keep_compute_capability(wheel, "9.0")
    with ZipFile(wheel) as file:
        assert file.read("a/liba.so.1") == only_device_code_of(whole, "9.0") != whole
        assert file.read("a/__init__.py") == b"x = 1\n"
        rows = file.read("a-1.dist-info/RECORD").decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["a/__init__.py", "a/liba.so.1", "a-1.dist-info/RECORD"]
    assert rows[1].endswith(f",{len(whole)}")


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """The content of a kit with two bundles, as far as `run.py` looks at it."""
    for name in ("demo", "ccr-layer1"):
        (tmp_path / "bundles" / name).mkdir(parents=True)
    return tmp_path


def test_a_part_of_a_step_is_selected_by_its_name(content: Path) -> None:
    names = [command.name for command in runner.selected("cuda/verify/demo", content)]
    assert names == [
        f"cuda/verify/demo/{precision}/{action}"
        for precision in ("fp32", "fp16")
        for action in ("build-engine", "golden")
    ]
    batches = {command.name.split("/")[-1] for command in runner.selected("cuda/benchmark", content)}
    assert batches == {"1", "8", "64"}
    assert {command.name for command in runner.selected("cuda", content)} > set(names)


@pytest.mark.parametrize("step", ["cud", "cuda/verif", "", "/", "rtx"])
def test_an_unknown_step_is_refused_with_the_known_ones(content: Path, step: str) -> None:
    with pytest.raises(ValueError, match=r"unknown step .*: choose from tests, sanitizer, cuda"):
        runner.selected(step, content)


@pytest.mark.parametrize(
    ("kept", "found", "expected"),
    [
        (None, {"gpu": {"compute_capability": "8.9"}}, None),
        ("8.9", {"gpu": {"compute_capability": "8.9"}}, None),
        ("9.0", {"gpu": {"compute_capability": "8.9"}}, "device code for compute capability 9.0 alone"),
        (None, {"obstacle": "no GPU found"}, "no GPU found: run the kit on a machine with an NVIDIA GPU"),
    ],
)
def test_a_machine_on_which_nothing_can_run_is_known_before_the_start(
    kept: str | None, found: dict[str, object], expected: str | None
) -> None:
    reason = runner.obstacle({"compute_capability": kept}, found)
    assert reason == expected if expected is None else expected in str(reason)


def test_the_result_of_a_command_holds_its_json_or_its_output(tmp_path: Path) -> None:
    def ran(code: str, limit_seconds: int = 60) -> dict[str, object]:
        return runner.run(runner.Command("a", ("-c", code), limit_seconds), tmp_path)

    answered = ran("print('{\"flips\": 0}')")
    assert (answered["status"], answered["result"], answered["stdout"]) == (0, {"flips": 0}, None)
    failed = ran("import sys; print('half'); sys.exit('Error: no provider')")
    assert (failed["status"], failed["result"], failed["stdout"]) == (1, None, "half\n")
    assert failed["stderr"] == "Error: no provider\n"


def test_a_command_that_takes_too_long_is_ended_and_recorded(tmp_path: Path) -> None:
    code = "import time; print('started', flush=True); time.sleep(600)"
    record = runner.run(runner.Command("a", ("-c", code), limit_seconds=1), tmp_path)
    assert record["status"] is None
    assert str(record["stderr"]).endswith("ended after 1 s")


def test_results_are_written_after_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second command reads what was written after the first.
    reads = "import sys; print(open(sys.argv[1]).read())"
    path = tmp_path / "two-a.json"
    commands = [
        runner.Command("two/a/first", ("-c", "print(1)")),
        runner.Command("two/a/second", ("-c", reads, str(path))),
        runner.Command("two/a/third", ("-c", "import sys; sys.exit('Error: third')")),
    ]
    monkeypatch.setitem(runner.STEPS, "two", lambda _: commands)
    monkeypatch.setattr(runner, "CONTENT", tmp_path)
    assert runner.run_step("two/a", tmp_path, {"kit": {}}) == 1
    records = json.loads(path.read_text())["commands"]
    assert [record["status"] for record in records] == [0, 0, 1]
    assert [record["name"] for record in records[1]["result"]["commands"]] == ["two/a/first"]
    assert "two/a/third: FAILED (Error: third)" in capsys.readouterr().out


def test_the_scripts_of_the_kit_need_the_standard_library_alone(tmp_path: Path) -> None:
    for name in ("install.py", "run.py"):
        shutil.copy(ROOT / "scripts" / "gpu_kit" / name, tmp_path / name)
        ran = subprocess.run(
            [sys.executable, "-I", "-S", str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        (line,) = ran.stderr.splitlines()
        assert line.startswith("Error: ")


def test_the_list_names_each_file_by_its_sha256(kit: Path) -> None:
    for line in (kit / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest
