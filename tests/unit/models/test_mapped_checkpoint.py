"""Encoders and chains of other implementations: widths are found, other structures and bad files refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from torch import Tensor, nn

from ccr_deploy.errors import CcrDeployError, CheckpointError, WrongUsageError
from ccr_deploy.models.chain import CcrChain, normalise
from ccr_deploy.models.checkpoint import save_checkpoint
from ccr_deploy.models.compressor_file import CompressorCheckpoint, save_compressor
from ccr_deploy.models.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder
from ccr_deploy.models.key_map import SourceTensor
from ccr_deploy.models.mapped_checkpoint import load_encoder, load_mapped_checkpoint
from ccr_deploy.models.presets import default_preprocessing
from ccr_deploy.models.widths import classifier_config, encoder_config
from tests.support.bundles import TINY
from tests.support.other_encoder import OtherBinarizer, OtherEncoder, other_encoder, other_loop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ccr_deploy.models.checkpoint import Checkpoint

SHIPPED = "pytorch-image-comp-rnn"
WIDTHS = EncoderConfig(stem_channels=4, cell_channels=(4, 6, 8), code_channels=16)
NAN = float("nan")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The files of another implementation's encoder and binarizer."""
    return save_other(*other_encoder(), tmp_path)


def save_other(encoder: OtherEncoder, binarizer: OtherBinarizer, folder: Path) -> tuple[Path, Path]:
    return (
        save(encoder.state_dict(), folder / "encoder.pth"),
        save(binarizer.state_dict(), folder / "binarizer.pth"),
    )


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def change(path: Path, **tensors: Tensor | None) -> Path:
    """Change or remove tensors of a file; names are written with ``__`` for a dot."""
    content = torch.load(path)
    for name, tensor in tensors.items():
        content[name.replace("__", ".")] = tensor
    return save({name: tensor for name, tensor in content.items() if tensor is not None}, path)


def write_map(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(f'schema_version = 1\ndescription = "a test"\n{text}')
    return str(path)


def refusal(error: type[CcrDeployError], paths: tuple[Path, ...], key_map: str | None = SHIPPED) -> str:
    with pytest.raises(error) as caught:
        load_encoder(paths, key_map)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Encoders


def test_the_widths_of_another_encoder_are_found(files: tuple[Path, Path]) -> None:
    loaded = load_encoder(files, SHIPPED)
    assert loaded.config == WIDTHS
    assert loaded.left_over == ()
    RecurrentEncoder(loaded.config).load_state_dict(loaded.state_dict)


def codes_of(paths: tuple[Path, ...], key_map: str, image: Tensor, iterations: int) -> Tensor:
    loaded = load_encoder(paths, key_map)
    network = RecurrentEncoder(loaded.config)
    network.load_state_dict(loaded.state_dict)
    pixels = normalise(image, default_preprocessing(ModelConfig(classifier=ClassifierConfig(cut="layer1"))))
    with torch.no_grad():
        return network.eval().pre_binarization(pixels, iterations)


def image(height: int = 32, width: int = 48) -> Tensor:
    shape = (2, height, width, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_values_before_the_sign_are_those_of_the_other_loop(files: tuple[Path, Path]) -> None:
    expected = other_loop(*other_encoder(), image(), 4)
    torch.testing.assert_close(codes_of(files, SHIPPED, image(), 4), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "order", [("output", "cell", "input", "forget"), ("cell", "input", "forget", "output")]
)
def test_gates_of_another_order_are_permuted(
    order: tuple[str, ...], files: tuple[Path, Path], tmp_path: Path
) -> None:
    ours = ("input", "forget", "cell", "output")
    encoder = torch.load(files[0])
    for name, tensor in encoder.items():
        if name.startswith("rnn"):
            blocks = dict(zip(ours, tensor.chunk(4), strict=True))
            encoder[name] = torch.cat([blocks[gate] for gate in order])
    save(encoder, files[0])
    renames = Path(__file__).parents[3] / f"ccr_deploy/models/key_maps/{SHIPPED}.toml"
    own = renames.read_text().replace(str(list(ours)).replace("'", '"'), str(list(order)).replace("'", '"'))
    assert own != renames.read_text()
    (tmp_path / "own.toml").write_text(own)
    expected = other_loop(*other_encoder(), image(), 3)
    found = codes_of(files, str(tmp_path / "own.toml"), image(), 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_tensors_without_a_name_are_left_over(files: tuple[Path, Path]) -> None:
    change(files[1], step=torch.ones(1), scale=torch.ones(2))
    left_over = load_encoder(files, SHIPPED).left_over
    assert [(tensor.path, tensor.name) for tensor in left_over] == [(files[1], "step"), (files[1], "scale")]


def test_one_file_with_all_tensors_below_state_dict_can_be_mapped(tmp_path: Path) -> None:
    encoder, binarizer = other_encoder()
    weights = {f"net.{name}": tensor for name, tensor in encoder.state_dict().items()}
    path = save(
        {"epoch": 3, "state_dict": {**weights, "bits.weight": binarizer.conv.weight.data}},
        tmp_path / "x.ckpt",
    )
    cells = "".join(
        f'"net.rnn{cell + 1}.conv_{there}.weight" = "encoder.cells.{cell}.{here}_conv.weight"\n'
        for cell in range(3)
        for there, here in (("ih", "input"), ("hh", "hidden"))
    )
    key_map = write_map(
        tmp_path,
        f'[renames.all]\n"net.conv." = "encoder.stem."\n"bits." = "encoder.binarizer.conv."\n{cells}',
    )
    assert load_encoder([path], key_map).config == WIDTHS


# This project's own files, without a key map


def encoder_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        name.removeprefix("encoder."): tensor
        for name, tensor in checkpoint.state_dict.items()
        if name.startswith("encoder.")
    }


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_encoder_of_a_checkpoint_is_read(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "tiny.pt")
    loaded = load_encoder([tmp_path / "tiny.pt"])
    assert (loaded.config, loaded.left_over) == (TINY.encoder, ())
    assert_same(loaded.state_dict, encoder_weights(tiny_checkpoint))


def test_the_encoder_of_a_compressor_is_read(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = encoder_weights(tiny_checkpoint)
    config = DecoderConfig(cell_channels=(8, 6, 6, 4))
    networks = nn.ModuleDict({"decoder": Decoder(config, TINY.encoder.code_channels)})
    state_dict = {**networks.state_dict(), **{f"encoder.{name}": tensor for name, tensor in weights.items()}}
    compressor = CompressorCheckpoint(
        TINY.encoder, config, (3,), tiny_checkpoint.preprocessing, state_dict, {}
    )
    save_compressor(compressor, tmp_path / "compressor.pt")
    loaded = load_encoder([tmp_path / "compressor.pt"])
    assert (loaded.config, loaded.left_over) == (TINY.encoder, ())
    assert_same(loaded.state_dict, weights)


def test_the_encoder_of_a_bare_state_dict_is_read_and_the_classifier_left_over(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in tiny_checkpoint.state_dict.items()}
    loaded = load_encoder([save(wrapped, tmp_path / "bare.pt")])
    assert loaded.config == TINY.encoder
    assert_same(loaded.state_dict, encoder_weights(tiny_checkpoint))
    assert all(tensor.name.startswith("classifier.") for tensor in loaded.left_over)


def test_other_names_need_a_key_map(files: tuple[Path, Path]) -> None:
    assert "give --key-map if its tensors have other names" in refusal(WrongUsageError, files[:1], None)
    assert "2 files needs a key map: give --key-map" in refusal(WrongUsageError, files, None)


# Widths


channels = st.integers(1, 16)


@settings(max_examples=25, deadline=None)
@given(channels, st.tuples(channels, channels, channels), st.integers(1, 4))
def test_widths_of_any_encoder_are_found(stem: int, cells: tuple[int, int, int], code_bytes: int) -> None:
    config = EncoderConfig(stem_channels=stem, cell_channels=cells, code_channels=8 * code_bytes)
    assert encoder_config(tensors_of(ModelConfig(encoder=config, classifier=TINY.classifier))) == config


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([("layer1", 0), ("layer2", 1), ("layer3", 2)]),
    st.integers(2, 9),
    st.tuples(channels, channels, channels, channels),
)
def test_cut_widths_and_classes_of_any_classifier_are_found(
    cut: tuple[str, int], classes: int, widths: tuple[int, int, int, int]
) -> None:
    name, unused = cut
    stages = (*ClassifierConfig(cut=None).stage_channels[:unused], *widths[unused:])
    config = ClassifierConfig(cut=name, classes=classes, stage_channels=stages)  # type: ignore[arg-type]
    assert classifier_config(tensors_of(structs.replace(TINY, classifier=config))) == config


def tensors_of(config: ModelConfig) -> dict[str, SourceTensor]:
    with torch.device("meta"):
        state_dict = CcrChain(config).state_dict()
    return {
        name: SourceTensor(Path("x.pt"), name, tuple(tensor.shape)) for name, tensor in state_dict.items()
    }


# Refusals


def test_hidden_convolutions_of_3x3_are_refused(tmp_path: Path) -> None:
    paths = save_other(OtherEncoder((4, 4, 6, 8), hidden_kernel=3), OtherBinarizer(8, 16), tmp_path)
    message = refusal(CheckpointError, paths)
    assert message.startswith(str(paths[0]))
    assert "rnn1.conv_hh.weight is [16, 4, 3, 3] instead of [16, 4, 1, 1]" in message
    assert "hidden convolutions are 1x1" in message


def test_biases_are_refused(tmp_path: Path) -> None:
    paths = save_other(OtherEncoder((4, 4, 6, 8), bias=True), OtherBinarizer(8, 16), tmp_path)
    assert "its encoder has 7 biases (conv.bias, rnn1.conv_ih.bias, rnn1.conv_hh.bias)" in refusal(
        CheckpointError, paths
    )


def test_four_cells_are_refused(tmp_path: Path) -> None:
    paths = save_other(OtherEncoder((4, 4, 8, 8, 8)), OtherBinarizer(8, 16), tmp_path)
    assert "its encoder has a further cell (rnn4.conv_ih.weight)" in refusal(CheckpointError, paths)


def test_two_cells_are_refused(tmp_path: Path) -> None:
    paths = save_other(OtherEncoder((4, 4, 8)), OtherBinarizer(8, 16), tmp_path)
    assert "has no tensor rnn3.conv_ih.weight" in refusal(WrongUsageError, paths)
    renames = Path(__file__).parents[3] / f"ccr_deploy/models/key_maps/{SHIPPED}.toml"
    own = tmp_path / "own.toml"
    own.write_text("\n".join(line for line in renames.read_text().splitlines() if "rnn3" not in line))
    message = refusal(WrongUsageError, paths, str(own))
    assert "gives no tensor for 2 of the model's names (encoder.cells.2.input_conv.weight" in message


@pytest.mark.parametrize(
    "here", ["encoder.cells.3.input_conv.weight", "encoder.stem.bias", "encoder.conv", "x"]
)
def test_a_name_that_no_model_has_is_refused(here: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    key_map = write_map(tmp_path, f'[renames.a]\n"conv.weight" = "{here}"')
    assert f"becomes {here}, which is no tensor of a model" in refusal(WrongUsageError, files[:1], key_map)


@pytest.mark.parametrize("bits", [4, 12])
def test_code_channels_that_are_no_whole_bytes_are_refused(bits: int, tmp_path: Path) -> None:
    message = refusal(CheckpointError, save_other(*other_encoder(bits=bits), tmp_path))
    assert "code_channels" in message


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("conv__weight", None, "has no tensor conv.weight"),
        ("conv__weight", torch.full((4, 3, 3, 3), NAN), "contain NaN or infinity (conv.weight)"),
        (
            "conv__weight",
            torch.ones((4, 3, 3, 3), dtype=torch.int64),
            "expected kind of number (conv.weight)",
        ),
        ("conv__weight", torch.tensor(1.0), "conv.weight has the shape [], which is no weight"),
        ("conv__weight", torch.ones((0, 3, 3, 3)), "conv.weight has the shape [0, 3, 3, 3]"),
        ("conv__weight", torch.zeros(1).expand(1 << 40, 3, 3, 3), "its tensors declare"),
        ("rnn1__conv_hh__weight", torch.ones(16), "rnn1.conv_hh.weight has the shape [16]"),
        ("rnn2__conv_ih__weight", torch.ones((24, 5, 3, 3)), "is [24, 5, 3, 3] instead of [24, 4, 3, 3]"),
    ],
)
def test_a_wrong_tensor_is_refused(
    name: str, tensor: Tensor | None, complaint: str, files: tuple[Path, Path]
) -> None:
    change(files[0], **{name: tensor})
    message = refusal(CcrDeployError, files)
    assert complaint in message
    assert str(files[0]) in message


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("content", [b"", b"I am no checkpoint\n", b"PK\x03\x04 zip?", "truncated"])
def test_a_damaged_file_is_named(content: bytes | str, position: int, files: tuple[Path, Path]) -> None:
    path = files[position]
    path.write_bytes(path.read_bytes()[:300] if isinstance(content, str) else content)
    assert str(path) in refusal(CheckpointError, files)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"conv.weight": [1.0]}, {}])
def test_a_file_without_tensors_is_named(content: object, files: tuple[Path, Path]) -> None:
    save(content, files[1])
    assert str(files[1]) in refusal(CheckpointError, files)


def test_a_missing_file_is_wrong_usage(files: tuple[Path, Path]) -> None:
    files[1].unlink()
    assert f"{files[1]}: no such file" in refusal(WrongUsageError, files)


# Chains

CHAIN = '[renames.all]\n"e." = "encoder."\n"c." = "classifier."'


@pytest.fixture
def other_chain(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A chain whose names have other prefixes, and an optimiser's tensor."""
    prefixes = {"encoder": "e", "classifier": "c"}
    renamed = {
        f"{prefixes[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor
        for name, tensor in tiny_checkpoint.state_dict.items()
    }
    return save({**renamed, "momentum": torch.ones(3)}, tmp_path / "chain.pth")


def test_a_whole_chain_is_read(other_chain: Path, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint, left_over = load_mapped_checkpoint([other_chain], write_map(tmp_path, CHAIN), (2, 3))
    found = checkpoint.config
    assert (found.encoder, found.classifier.cut, found.classifier.classes) == (TINY.encoder, "layer2", 5)
    assert found.classifier.stage_channels[1:] == TINY.classifier.stage_channels[1:]
    assert (checkpoint.trained_iterations, found.iterations) == ((2, 3), 3)
    assert_same(checkpoint.state_dict, tiny_checkpoint.state_dict)
    assert [tensor.name for tensor in left_over] == ["momentum"]


def test_a_chain_needs_its_trained_iterations(other_chain: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="give --trained-iterations"):
        load_mapped_checkpoint([other_chain], write_map(tmp_path, CHAIN), None)


def test_an_encoder_alone_is_refused_with_the_command_that_trains_a_classifier(
    files: tuple[Path, Path],
) -> None:
    command = (
        f"python -m training finetune --encoder-from {files[0]} --encoder-from {files[1]} --key-map {SHIPPED}"
    )
    with pytest.raises(WrongUsageError, match="an encoder without a classifier") as caught:
        load_mapped_checkpoint(files, SHIPPED, (8,))
    assert command in str(caught.value)


def test_a_chain_without_a_tensor_of_its_classifier_is_refused(other_chain: Path, tmp_path: Path) -> None:
    change(other_chain, c__layer4__0__bn1__running_var=None)
    with pytest.raises(WrongUsageError, match=r"\(classifier\.layer4\.0\.bn1\.running_var\)"):
        load_mapped_checkpoint([other_chain], write_map(tmp_path, CHAIN), (3,))
