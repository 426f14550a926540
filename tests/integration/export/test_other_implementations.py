"""A compressor of another implementation, exported by a key map, gives the bits of its own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ccr_deploy.bundle.reader import Bundle
from ccr_deploy.engines.factory import EngineFactory
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.models.key_map import find_key_map
from ccr_deploy.models.resnet import TruncatedClassifier
from tests.support.cli_runner import run
from tests.support.other_encoder import OtherBinarizer, OtherEncoder, other_encoder, other_loop

if TYPE_CHECKING:
    from ccr_deploy.engines.store import EngineStore

ITERATIONS, HEIGHT, WIDTH, BITS = 8, 128, 160, 32
WIDTHS = (64, 256, 512, 512)
MARGIN = 1e-5
"""40 times what float32 differs from float64 here: values closer to zero could have either sign."""


@pytest.fixture(scope="module")
def networks() -> tuple[OtherEncoder, OtherBinarizer]:
    return other_encoder(WIDTHS, BITS, seed=3)


@pytest.fixture(scope="module")
def bundle(networks: tuple[OtherEncoder, OtherBinarizer], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An export of three files: the other encoder and binarizer, and a classifier of this project."""
    folder = tmp_path_factory.mktemp("other")
    config = ClassifierConfig(cut="layer3", classes=4, stage_channels=(8, 8, 16, 16))
    parts = dict(zip(("encoder", "binarizer"), networks, strict=True))
    files: list[object] = []
    for name, network in {**parts, "classifier": TruncatedClassifier(config, BITS)}.items():
        torch.save(network.state_dict(), folder / f"{name}.pth")
        files += ["--checkpoint", folder / f"{name}.pth"]
    shipped = find_key_map("pytorch-image-comp-rnn").read_text(encoding="utf-8")
    (folder / "chain.toml").write_text(f'{shipped}\n[renames.classifier]\n"" = "classifier."\n')
    outcome = run(
        "export", *files, "--key-map", folder / "chain.toml", "--trained-iterations", ITERATIONS,
        "--image-size", HEIGHT, WIDTH, "--schedule", "iteration-major", "--no-fp16", folder / "bundle",
    )  # fmt: skip
    assert (outcome.status, outcome.stderr) == (0, "")
    return Bundle.open(folder / "bundle")


@pytest.mark.parametrize("target", ["cpu", "cpu-openvino"])
def test_the_exported_encoder_gives_the_bits_of_the_other_loop(
    target: str, bundle: Bundle, networks: tuple[OtherEncoder, OtherBinarizer], store: EngineStore
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    values = other_loop(*networks, torch.from_numpy(image), ITERATIONS).numpy()
    assert np.abs(values).min() > MARGIN
    factory = EngineFactory(bundle, target, store, {"encoder": "fp32"})
    with factory.load(factory.build("encoder")[0]) as runner:
        (code,) = runner.infer({"image": image}).values()
    np.testing.assert_array_equal(code, np.packbits(values.reshape(1, -1) >= 0, axis=1))


def test_the_bundle_records_the_widths_of_the_tensors(bundle: Bundle) -> None:
    model = bundle.manifest.model
    assert (model.encoder.stem_channels, *model.encoder.cell_channels) == WIDTHS
    assert (model.encoder.code_channels, model.iterations) == (BITS, ITERATIONS)
    assert (model.classifier.cut, model.classifier.classes) == ("layer3", 4)
