"""Compressors: what was saved is loaded; damaged and unfit files are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ccr_deploy.codec.contract import Preprocessing
from ccr_deploy.core.records import to_builtins
from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.compressor_file import CompressorCheckpoint, load_compressor, save_compressor
from ccr_deploy.models.config import DecoderConfig, EncoderConfig
from ccr_deploy.models.decoder import Decoder
from ccr_deploy.models.encoder import RecurrentEncoder

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = EncoderConfig(stem_channels=4, cell_channels=(4, 6, 8), code_channels=16)
DECODER = DecoderConfig(cell_channels=(8, 6, 6, 4))
NAN = float("nan")


@pytest.fixture(scope="module")
def compressor() -> CompressorCheckpoint:
    networks = {"encoder": RecurrentEncoder(CONFIG), "decoder": Decoder(DECODER, CONFIG.code_channels)}
    weights = {
        f"{part}.{name}": tensor
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    preprocessing = Preprocessing(resize_to_cover=(36, 40))
    return CompressorCheckpoint(CONFIG, DECODER, (2, 4), preprocessing, weights, {"psnr_t4": 24.5})


def file_content(compressor: CompressorCheckpoint, **changes: object) -> dict[str, object]:
    """Return the content of a compressor's file as documented, with some fields changed."""
    return {
        "format": "ccr-deploy compressor",
        "version": 1,
        "config": to_builtins(CONFIG),
        "decoder": to_builtins(DECODER),
        "iterations": [2, 4],
        "preprocessing": to_builtins(compressor.preprocessing),
        "metrics": {"psnr_t4": 24.5},
        "state_dict": dict(compressor.state_dict),
        **changes,
    }


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_compressor(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_saved_compressor_loads_with_all_fields(compressor: CompressorCheckpoint, tmp_path: Path) -> None:
    save_compressor(compressor, tmp_path / "compressor.pt")
    loaded = load_compressor(tmp_path / "compressor.pt")
    for name in ("config", "decoder", "iterations", "preprocessing", "metrics"):
        assert getattr(loaded, name) == getattr(compressor, name), name
    assert list(loaded.state_dict) == list(compressor.state_dict)
    for name, tensor in compressor.state_dict.items():
        assert torch.equal(loaded.state_dict[name], tensor), name


def test_the_saved_file_has_the_documented_fields(compressor: CompressorCheckpoint, tmp_path: Path) -> None:
    save_compressor(compressor, tmp_path / "compressor.pt")
    content = torch.load(tmp_path / "compressor.pt", weights_only=True)
    documented = file_content(compressor)
    assert set(content) == set(documented)
    assert (content["format"], content["version"]) == (documented["format"], documented["version"])


def test_a_metric_that_is_not_finite_is_refused_before_it_is_saved(compressor: CompressorCheckpoint) -> None:
    with pytest.raises(CheckpointError, match="metric psnr is nan"):
        CompressorCheckpoint(
            CONFIG, DECODER, (2,), compressor.preprocessing, compressor.state_dict, {"psnr": NAN}
        )


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="no such file"):
        load_compressor(tmp_path / "none.pt")


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_a_truncated_compressor_is_refused(
    part: float, compressor: CompressorCheckpoint, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    save_compressor(compressor, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refusal(path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": "ccr-deploy checkpoint"}, "not a compressor: give a file that"),
        ({"version": 2}, "checkpoint version 2 is not supported, expected 1"),
        ({"version": True}, "checkpoint version of type bool is not supported"),
        ({"config": {"stem_channels": 0}}, "stem_channels"),
        ({"config": {"width": 4}}, "width"),
        ({"iterations": [2, 2]}, "iterations"),
        ({"metrics": {"psnr": NAN}}, "psnr"),
        ({"preprocessing": None}, "preprocessing"),
        ({"state_dict": {}}, "it has no tensors"),
        ({"state_dict": None}, "it has no tensors"),
        ({"decoder": {"cell_channels": [8, 6, 6, 5]}}, "of a wrong shape (decoder.cells.3.input_conv.weight"),
    ],
)
def test_a_compressor_that_does_not_fit_is_refused(
    changes: dict[str, object], complaint: str, compressor: CompressorCheckpoint, tmp_path: Path
) -> None:
    torch.save(file_content(compressor, **changes), tmp_path / "x.pt")
    assert complaint in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "1 missing (encoder.stem.weight)"),
        (torch.full((4, 3, 3, 3), NAN), "contain NaN or infinity (encoder.stem.weight)"),
        (torch.ones((4, 3, 3, 3), dtype=torch.int64), "not of the expected kind of number"),
        (torch.ones(1).expand(4, 3, 3, 3).to_sparse(), "are sparse"),
    ],
)
def test_a_wrong_tensor_is_refused(
    value: torch.Tensor | None, complaint: str, compressor: CompressorCheckpoint, tmp_path: Path
) -> None:
    weights = {**compressor.state_dict, "encoder.stem.weight": value}
    torch.save(file_content(compressor, state_dict=weights), tmp_path / "x.pt")
    assert complaint in refusal(tmp_path / "x.pt")


def test_a_tensor_that_repeats_one_element_is_refused(tmp_path: Path) -> None:
    """A view could declare gigabytes in a file of a few bytes."""
    wide = EncoderConfig(stem_channels=512, cell_channels=(512, 512, 512))
    decoder = DecoderConfig(cell_channels=(512, 512, 512, 512))
    with torch.device("meta"):
        networks = {"encoder": RecurrentEncoder(wide), "decoder": Decoder(decoder, 32)}
    views = {
        f"{part}.{name}": torch.zeros(1).expand(tensor.shape)
        for part, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    content = {
        "format": "ccr-deploy compressor",
        "version": 1,
        "config": to_builtins(wide),
        "decoder": to_builtins(decoder),
        "iterations": [2],
        "preprocessing": to_builtins(Preprocessing(resize_to_cover=(32, 32))),
        "metrics": {},
        "state_dict": views,
    }
    torch.save(content, tmp_path / "x.pt")
    assert "its tensors declare" in refusal(tmp_path / "x.pt")
