"""Golden files: written, read back, and refused if anything about them is wrong."""

from __future__ import annotations

import errno
import io
import os
import zipfile

import numpy as np
import pytest
from msgspec.structs import replace

from ccr_deploy.codec.contract import CodeContract, Preprocessing, pack_code
from ccr_deploy.errors import GoldenError
from ccr_deploy.verification.golden import (
    MAX_IMAGES,
    SCHEMA_VERSION,
    Golden,
    GoldenRecord,
    most_images,
    read_golden,
    write_golden,
)

CONTRACT = CodeContract(
    image_height=32,
    image_width=48,
    preprocessing=Preprocessing(resize_to_cover=(32, 48)),
    iterations=2,
    code_channels=16,
    encoder_digest="0" * 64,
)
COUNT, CLASSES = 3, 5


def golden(seed: int = 0) -> Golden:
    draw = np.random.default_rng(seed)
    margins = draw.standard_normal((COUNT, 8 * CONTRACT.code_bytes)).astype(np.float16)
    record = GoldenRecord(
        schema_version=SCHEMA_VERSION,
        created_by="ccr-deploy test",
        contract=CONTRACT,
        contract_id=CONTRACT.contract_id,
        weights_sha256="1" * 64,
        baseline_sha256=None,
        classes=CLASSES,
        baseline_classes=None,
        images="val/",
        image_names=("a.png", "b.png", "c.png"),
        labels=(0, None, 4),
        groups=("a", "b", "c"),
        limits={"fp32": {"max-flipped-percent": 0.1}},
    )
    return Golden(
        record=record,
        images=draw.integers(0, 256, (COUNT, 32, 48, 3), dtype=np.uint8),
        codes=pack_code(margins),
        margins=margins,
        logits={"classifier": draw.standard_normal((COUNT, CLASSES)).astype(np.float32)},
    )


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "model.golden"
    write_golden(file, golden())
    return file


def test_what_is_written_is_read_back(path):
    written, read = golden(), read_golden(path)
    assert read.record == written.record
    for name in ("images", "codes", "margins"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.logits.keys() == {"classifier"}
    np.testing.assert_array_equal(read.logits["classifier"], written.logits["classifier"])


def test_a_baselines_logits_are_kept(tmp_path):
    plain = golden()
    logits = np.random.default_rng(1).standard_normal((COUNT, 7)).astype(np.float32)
    record = replace(plain.record, baseline_sha256="2" * 64, baseline_classes=7)
    whole = Golden(record, plain.images, plain.codes, plain.margins, {**plain.logits, "baseline": logits})
    write_golden(tmp_path / "model.golden", whole)
    np.testing.assert_array_equal(read_golden(tmp_path / "model.golden").logits["baseline"], logits)


def test_equal_content_makes_equal_files(path, tmp_path):
    write_golden(tmp_path / "again.golden", golden())
    assert (tmp_path / "again.golden").read_bytes() == path.read_bytes()


def test_numpy_opens_it_without_pickle(path):
    with np.load(path, allow_pickle=False) as archive:
        assert archive["images"].shape == (COUNT, 32, 48, 3)


@pytest.mark.parametrize("kept", [0, 1, 100, 1000, -1])
def test_a_truncated_file_is_refused_and_named(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GoldenError, match=r"model\.golden: not a golden file, or damaged .*--export-golden"):
        read_golden(path)


def test_every_single_damaged_byte_is_refused_or_harmless(path):
    """A byte of an archive's unused fields may change, but never what is read."""
    whole, expected = path.read_bytes(), read_golden(path)
    refused = 0
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            found = read_golden(path)
        except GoldenError:
            refused += 1
            continue
        assert found.record == expected.record
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.margins, expected.margins)
    assert refused > len(whole) / 37 * 0.9


def rewritten(path, **changed: bytes | None) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {
        name.replace("_npy", ".npy").replace("_json", ".json"): content for name, content in changed.items()
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images_npy": None}, r"images\.npy is missing"),
        ({"record_json": None}, r"record\.json is missing"),
        ({"record_json": b"{"}, "not JSON"),
        ({"record_json": b'{"schema_version": 99}'}, "schema version 99 is not supported, expected 1"),
        (
            {"images_npy": npy(np.zeros((COUNT, 32, 32, 3), np.uint8))},
            r"images\.npy: uint8 \[3, 32, 32, 3\], expected",
        ),
        ({"images_npy": npy(np.zeros((COUNT, 32, 48, 3), np.float32))}, r"images\.npy: float32"),
        ({"images_npy": npy(np.zeros((COUNT, 32, 48, 3), np.uint8))[:-1]}, r"images\.npy: \d+ bytes of data"),
        (
            {"images_npy": npy(np.zeros((COUNT, 32, 48, 3), np.uint8)) + b"x"},
            r"images\.npy: \d+ bytes of data",
        ),
        ({"images_npy": npy(np.array([{}], object))}, r"images\.npy: object"),
        ({"margins_npy": npy(np.full((COUNT, 96), np.nan, np.float16))}, r"margins\.npy holds NaN"),
        (
            {"classifier_logits_npy": npy(np.full((COUNT, CLASSES), np.inf, np.float32))},
            r"classifier_logits\.npy holds NaN or infinity",
        ),
        ({"margins_npy": npy(np.ones((COUNT, 96), np.float16))}, r"signs in margins\.npy are not the bits"),
        ({"payloads_npy": npy(np.zeros((COUNT, 36), np.uint8))}, r"payloads\.npy: "),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_named(path, changed, message):
    rewritten(path, **changed)
    with pytest.raises(GoldenError, match=message):
        read_golden(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(path, method):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(GoldenError, match=rf"record\.json: compression method {method} is not supported"):
        read_golden(path)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_not_a_class_is_refused(label):
    with pytest.raises(ValueError, match=f"an image has label {label}, but there are 5 classes"):
        replace(golden().record, labels=(0, label, None))


@pytest.mark.parametrize("part", ["margins", "logits"])
def test_nan_is_not_written(tmp_path, part):
    whole = golden()
    (whole.margins if part == "margins" else whole.logits["classifier"])[1, 2] = np.nan
    with pytest.raises(GoldenError, match=r"not written: .* for b\.png are NaN or infinite"):
        write_golden(tmp_path / "nan.golden", whole)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(GoldenError, match=r"the golden file cannot be written \(No space left on device\)"):
        write_golden(path, golden(1))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("size", "channels", "classes", "most"),
    [(224, 32, 1000, MAX_IMAGES), (4096, 32, 1000, 21), (224, 4096, 10, 668), (32, 32, 1 << 20, 256)],
)
def test_what_can_be_written_can_be_read(size, channels, classes, most):
    contract = replace(CONTRACT, image_height=size, image_width=size, code_channels=channels)
    assert most_images(contract, classes) == most


def test_an_array_of_claimed_size_is_refused_before_memory_is_reserved(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (COUNT, 32, 48, 10**12)}
    )
    rewritten(path, images_npy=header.getvalue())
    with pytest.raises(GoldenError, match=r"images\.npy: uint8"):
        read_golden(path)


def test_logits_of_a_claimed_size_are_refused(path):
    whole = golden()
    write_golden(path, Golden(replace(whole.record, classes=10**9), *_arrays(whole)))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (COUNT, 10**9)}
    )
    rewritten(path, classifier_logits_npy=header.getvalue())
    with pytest.raises(GoldenError, match=r"classifier_logits\.npy: over the limit of 1024 MiB"):
        read_golden(path)


def _arrays(whole: Golden):
    return whole.images, whole.codes, whole.margins, whole.logits


def test_a_missing_file_is_named_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(GoldenError, match=r"none\.golden: no such file: write it with ccr-deploy verify"):
        read_golden(tmp_path / "none.golden")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(GoldenError, match=r"no/such: the golden file cannot be written"):
        write_golden(tmp_path / "no" / "such", golden())
