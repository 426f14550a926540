"""Key maps: every tensor gets one name, is ignored or left over; maps that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.key_map import (
    KeyMap,
    find_key_map,
    key_map_files,
    left_over_lines,
    read_key_map,
    rename,
)

MAP, FIRST, SECOND = Path("map.toml"), Path("first.pth"), Path("second.pth")
SHAPE = (4, 3, 1, 1)
SHIPPED = "pytorch-image-comp-rnn"

part = st.text("abc123", min_size=1, max_size=3)
tensor_name = st.lists(part, min_size=2, max_size=4).map(".".join)
tensor_names = st.sets(tensor_name, min_size=1, max_size=8)


def key_map(ignore: tuple[str, ...] = (), **renames: dict[str, str]) -> KeyMap:
    return KeyMap(schema_version=1, description="", renames=renames, ignore=ignore)


def shapes(*names: str) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, SHAPE)


def refusal(renamed: KeyMap, *files: tuple[Path, dict[str, tuple[int, ...]]]) -> str:
    with pytest.raises((WrongUsageError, CheckpointError)) as caught:
        rename(renamed, MAP, files)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Names


@given(tensor_names, st.data())
def test_every_tensor_is_renamed_ignored_or_left_over(names: set[str], data: st.DataObject) -> None:
    renamed = data.draw(st.sets(st.sampled_from(sorted(names))), "renamed")
    ignored = data.draw(st.sets(st.sampled_from(sorted(names))), "ignored") - renamed
    table = {name: f"here.{name}" for name in renamed}
    found = rename(key_map(tuple(sorted(ignored)), file=table), MAP, [(FIRST, shapes(*names))])
    assert {here: source.name for here, source in found.sources.items()} == {
        f"here.{name}": name for name in renamed
    }
    assert {tensor.name for tensor in found.left_over} == names - renamed - ignored
    assert all(source.shape == SHAPE for source in found.sources.values())


@given(tensor_names, part)
def test_a_prefix_renames_all_tensors_that_begin_with_it(names: set[str], prefix: str) -> None:
    there = shapes(*(f"{prefix}.{name}" for name in names), f"{prefix}X.weight")
    found = rename(key_map(file={f"{prefix}.": "here."}), MAP, [(FIRST, there)])
    assert set(found.sources) == {f"here.{name}" for name in names}
    assert [tensor.name for tensor in found.left_over] == [f"{prefix}X.weight"]


@given(tensor_names)
def test_the_empty_prefix_renames_all_tensors(names: set[str]) -> None:
    found = rename(key_map(file={"": "here."}), MAP, [(FIRST, shapes(*names))])
    assert set(found.sources) == {f"here.{name}" for name in names}
    assert found.left_over == ()


@given(tensor_names, st.data())
def test_a_name_that_matches_nothing_is_refused(names: set[str], data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from(sorted(names)))
    table = {name: f"here.{name}" for name in names}
    message = refusal(key_map(file=table), (FIRST, shapes(*(names - {missing}), "other.weight")))
    assert f"{FIRST}: has no tensor {missing}, which {MAP} renames (renames.file)" in message


def test_a_prefix_that_matches_nothing_is_refused() -> None:
    message = refusal(key_map(file={"layer2.": "here."}), (FIRST, shapes("layer3.weight")))
    assert "has no tensor whose name begins with layer2." in message


@given(tensor_name)
def test_two_names_that_match_one_tensor_are_refused(name: str) -> None:
    prefix = f"{name.partition('.')[0]}."
    message = refusal(key_map(file={prefix: "here.", name: "there.weight"}), (FIRST, shapes(name)))
    assert f"both match the tensor {name} of {FIRST}" in message


def test_a_tensor_that_is_renamed_and_ignored_is_refused() -> None:
    renamed = key_map(("a.weight",), file={"a.weight": "here.weight"})
    assert "'a.weight' and 'a.weight' (renames.file, ignore) both match" in refusal(
        renamed, (FIRST, shapes("a.weight"))
    )


@given(st.sets(tensor_name, min_size=2, max_size=4))
def test_two_tensors_that_become_one_are_refused(names: set[str]) -> None:
    message = refusal(key_map(file=dict.fromkeys(names, "here.weight")), (FIRST, shapes(*names)))
    assert "both become here.weight" in message


def test_equal_names_in_two_files_are_told_apart() -> None:
    renamed = key_map(one={"conv.weight": "a.weight"}, two={"conv.weight": "b.weight"})
    found = rename(renamed, MAP, [(FIRST, shapes("conv.weight")), (SECOND, shapes("conv.weight", "x"))])
    assert {here: source.path for here, source in found.sources.items()} == {
        "a.weight": FIRST,
        "b.weight": SECOND,
    }
    assert left_over_lines(found.left_over) == [f"{SECOND}: left over: 1 tensors (x)"]


def test_another_number_of_files_is_refused_with_their_order() -> None:
    renamed = key_map(one={"a": "b"}, two={"a": "c"})
    message = refusal(renamed, (FIRST, shapes("a")))
    assert "renames tensors of 2 files (one, two), 1 given: give one file for each, in this order" in message
    assert "given twice" in refusal(renamed, (FIRST, shapes("a")), (FIRST, shapes("a")))


def test_files_in_another_order_are_refused_with_their_order() -> None:
    renamed = read_key_map(find_key_map(SHIPPED))
    encoder = (FIRST, shapes(*renamed.renames["encoder"]))
    binarizer = (SECOND, shapes(*renamed.renames["binarizer"]))
    assert "the order of the files (encoder, binarizer)" in refusal(renamed, binarizer, encoder)


# Encoders of another structure


@pytest.mark.parametrize("ignore", [(), ("rnn2.conv_ih.bias",)])
def test_biases_of_the_encoder_are_refused_even_if_they_are_ignored(ignore: tuple[str, ...]) -> None:
    """Without them, the codes would be others."""
    table = {"rnn2.conv_ih.weight": "encoder.cells.1.input_conv.weight"}
    message = refusal(
        key_map(ignore, file=table), (FIRST, shapes("rnn2.conv_ih.weight", "rnn2.conv_ih.bias"))
    )
    assert "its encoder has 1 biases (rnn2.conv_ih.bias)" in message


def test_a_further_cell_is_refused_unless_it_is_ignored() -> None:
    table = {f"rnn{cell}.ih.weight": f"encoder.cells.{cell}.input_conv.weight" for cell in range(3)}
    there = shapes(*table, "rnn3.ih.weight", "decoder.rnn0.ih.weight")
    message = refusal(key_map(file=table), (FIRST, there))
    assert "its encoder has a further cell (rnn3.ih.weight)" in message
    found = rename(key_map(("rnn3.",), file=table), MAP, [(FIRST, there)])
    assert [tensor.name for tensor in found.left_over] == ["decoder.rnn0.ih.weight"]


# Files


def test_a_long_list_of_left_over_tensors_is_cut() -> None:
    found = rename(key_map(file={"x.a": "x.b"}), MAP, [(FIRST, shapes("x.a", *map(str, range(11))))])
    (line,) = left_over_lines(found.left_over)
    assert line == f"{FIRST}: left over: 11 tensors (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)"


def test_every_shipped_key_map_is_found_by_name_and_can_be_read() -> None:
    assert SHIPPED in key_map_files()
    for name, path in key_map_files().items():
        assert find_key_map(name) == path
        assert read_key_map(path).description


def test_a_key_map_is_found_by_path() -> None:
    assert find_key_map("folder/own.toml") == Path("folder/own.toml")


def test_an_unknown_key_map_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WrongUsageError, match=f"did you mean {SHIPPED}\\?"):
        find_key_map("pytorch-image")


GOOD = 'schema_version = 1\ndescription = ""\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "schema_version"),
        ('schema_version = 2\ndescription = ""\n[renames.a]\n"x" = "y"', "schema_version"),
        (GOOD, "renames"),
        (f"{GOOD}[renames]", "renames"),
        (f'{GOOD}[renames]\n"x" = "y"', "renames.x"),
        (f'{GOOD}prefix = "x"\n[renames.a]\n"x" = "y"', "field prefix: unknown field"),
        (f'{GOOD}gates = ["input", "forget", "cell"]\n[renames.a]\n"x" = "y"', "gates"),
        (f'{GOOD}gates = ["input", "forget", "cell", "cell"]\n[renames.a]\n"x" = "y"', "give each of input"),
        (f'{GOOD}[renames.a]\n"x." = "y"', "'x.' and 'y'"),
        (f'{GOOD}[renames.a]\n"x" = ""', "'x' and ''"),
        (f'{GOOD}[renames.a]\n"x" = "y"\n"x" = "z"', "cannot be read as TOML"),
        (f'{GOOD}[renames.a]\n"x" = "y', "cannot be read as TOML"),
    ],
)
def test_a_wrong_key_map_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(WrongUsageError) as caught:
        read_key_map(tmp_path / "map.toml")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "map.toml"))
    assert complaint in message


def test_a_missing_key_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="no such file"):
        read_key_map(tmp_path / "none.toml")
