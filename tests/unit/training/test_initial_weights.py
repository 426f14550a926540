from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from ccr_deploy.errors import CheckpointError, WrongUsageError
from ccr_deploy.models.config import ClassifierConfig
from ccr_deploy.models.presets import preset
from ccr_deploy.models.resnet import TruncatedClassifier, WholeResNet18
from training.initial_weights import InitialWeights, load_residual_stages, resnet_weights

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def imagenet() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return resnet18().state_dict()


@pytest.mark.parametrize(
    ("cut", "kept"),
    [("layer1", {"layer2", "layer3", "layer4"}), ("layer2", {"layer3", "layer4"}), ("layer3", {"layer4"})],
)
def test_a_truncated_classifier_takes_the_stages_that_it_keeps(
    cut: str, kept: set[str], imagenet: dict[str, torch.Tensor]
) -> None:
    classifier = TruncatedClassifier(preset(f"ccr-{cut}").classifier, 32)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    loaded = load_residual_stages(classifier, InitialWeights("torchvision", imagenet))
    after = classifier.state_dict()
    assert {name.partition(".")[0] for name in loaded} == kept
    for name in after:
        expected = imagenet[name] if name.partition(".")[0] in kept else before[name]
        assert torch.equal(after[name], expected), name


def test_the_whole_resnet_takes_everything_if_it_has_as_many_classes(
    imagenet: dict[str, torch.Tensor],
) -> None:
    weights = InitialWeights("torchvision", imagenet)
    whole = WholeResNet18(ClassifierConfig(cut=None, classes=1000))
    assert set(load_residual_stages(whole, weights)) == set(imagenet)
    other = WholeResNet18(ClassifierConfig(cut=None, classes=100))
    assert set(imagenet) - set(load_residual_stages(other, weights)) == {"fc.weight", "fc.bias"}
    whole.eval()
    image = torch.rand(1, 3, 64, 64)
    reference = resnet18()
    reference.load_state_dict(imagenet)
    with torch.inference_mode():
        expected = reference.eval()((image - whole.mean) / whole.std)
        torch.testing.assert_close(whole(image), expected, rtol=1e-4, atol=1e-4)


def test_other_widths_and_other_networks_are_refused(imagenet: dict[str, torch.Tensor]) -> None:
    narrow = TruncatedClassifier(preset("demo").classifier, 32)
    with pytest.raises(WrongUsageError, match=r"file\.pth: layer4.*instead of.*other widths"):
        load_residual_stages(narrow, InitialWeights("file.pth", imagenet))
    classifier = TruncatedClassifier(preset("ccr-layer3").classifier, 32)
    some = {name: tensor for name, tensor in imagenet.items() if not name.startswith("layer4")}
    with pytest.raises(WrongUsageError, match=r"file\.pth: not a ResNet-18: it has no layer4"):
        load_residual_stages(classifier, InitialWeights("file.pth", some))


def test_weights_are_read_from_a_file(imagenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(imagenet, tmp_path / "resnet.pth")
    found = resnet_weights(str(tmp_path / "resnet.pth"))
    assert found.source == "resnet.pth"
    assert set(found.state_dict) == set(imagenet)
    content = (tmp_path / "resnet.pth").read_bytes()
    (tmp_path / "resnet.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"resnet\.pth"):
        resnet_weights(str(tmp_path / "resnet.pth"))
    with pytest.raises(WrongUsageError, match=r"missing\.pth: no such file"):
        resnet_weights(str(tmp_path / "missing.pth"))


def test_torchvision_uses_weights_that_were_downloaded_before(
    imagenet: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(imagenet, folder / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2])
    found = resnet_weights("torchvision")
    assert torch.equal(found.state_dict["conv1.weight"], imagenet["conv1.weight"])


def test_the_fingerprint_is_that_of_the_content(imagenet: dict[str, torch.Tensor]) -> None:
    first = InitialWeights("a", imagenet).fingerprint
    changed = {**imagenet, "fc.bias": imagenet["fc.bias"] + 1}
    assert InitialWeights("a", dict(imagenet)).fingerprint == first
    assert InitialWeights("a", changed).fingerprint != first
