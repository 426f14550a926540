"""Untrusted files: anything but a regular file, and content that is too large or too deep, is refused."""

import os
from pathlib import Path

import pytest

from ccr_deploy.core.untrusted import check_plain, open_regular, parse_json, read_bytes, read_json


def test_a_regular_file_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes('{"a": [1, 2.5, "é", null, true]}'.encode())
    assert read_json(path) == {"a": [1, 2.5, "é", None, True]}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_fifo, make_device])
def test_fifos_and_devices_are_refused_without_blocking(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(OSError, match="a FIFO, socket or device, not a regular file"):
        open_regular(tmp_path / "x")


def test_a_folder_and_a_missing_file_have_their_own_errors(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_a_file_larger_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    assert read_bytes(path, 1 << 20) == bytes(1 << 20)
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(OSError, match="larger than the limit of 1024 KiB"):
        read_bytes(path, 1 << 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 33 + b"]" * 33, "nested more than 32 levels deep"),
        (b"[" * 1_000_000, "nested more than 32 levels deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested more than 32 levels deep"),
        ("{}".encode("utf-16"), "can't decode"),
        ("{}".encode("utf-8-sig"), "BOM"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udc00": 1}', "half of a surrogate pair"),
        (b"9223372036854775808", "does not fit 64 bits"),
        (b"9" * 5000, "value has 5000 digits"),
        (b"[" + b"0," * 2_000_000 + b"0]", "holds more than 2000000 values"),
        (b"{", "property name"),
    ],
)
def test_invalid_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"[" * 32 + b"]" * 32, b'"\\ud83d\\ude00"', b"-9223372036854775808"])
def test_valid_json_is_parsed(text):
    parse_json(text)


def test_a_list_that_holds_itself_is_refused():
    cyclic: list[object] = []
    cyclic.append(cyclic)
    with pytest.raises(ValueError, match="nested"):
        check_plain(cyclic)


def test_a_small_structure_that_expands_beyond_the_limit_is_refused():
    laughs: list[object] = ["ha"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    with pytest.raises(ValueError, match="more than 2000000 values"):
        check_plain(laughs)
