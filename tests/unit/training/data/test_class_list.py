from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ccr_deploy.errors import WrongUsageError
from training.data.class_list import read_class_list

if TYPE_CHECKING:
    from pathlib import Path


def test_names_after_wordnet_ids_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(
        "\ufeffn02077923\r\nn01440764 tench, Tinca tinca\n\nn01443537\tgoldfish\nn02085620,Chihuahua".encode()
    )
    assert read_class_list(path) == ("n02077923", "n01440764", "n01443537", "n02085620")


def test_other_lines_are_names_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(" golden retriever \nn0144076 tench\n")
    assert read_class_list(path) == ("golden retriever", "n0144076 tench")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n\na\n", "lists a on line 1 and again on line 4"),
        (b"a\n", "lists 1 classes: at least 2"),
        (b"", "lists 0 classes"),
        (b"a\n../b\n", r"line 2: '\.\./b' cannot be the name of a class folder"),
        (b"a\n..\n", "line 2"),
        (b"\xff\xfe", "not text in UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongUsageError, match=message) as caught:
        read_class_list(path)
    assert str(path) in str(caught.value)
