from __future__ import annotations

import numpy as np
import torch

from ccr_deploy.codec.contract import Preprocessing
from tests.support.training_images import photo
from training.data.augmentation import Augmentation, Augmenter

PREPROCESSING = Preprocessing(resize_to_cover=(48, 48), resize_filter="bicubic")


def augmented(seed: int, augmentation: Augmentation = Augmentation(color_jitter=0.4)) -> np.ndarray:  # noqa: B008
    return np.asarray(Augmenter(augmentation, PREPROCESSING, 32, 48)(photo("chelsea"), seed))


def test_equal_seeds_give_equal_images() -> None:
    torch.manual_seed(5)
    first = augmented(7)
    torch.manual_seed(6)
    assert first.shape == (32, 48, 3)
    assert np.array_equal(first, augmented(7))
    assert not np.array_equal(first, augmented(8))


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augmented(7)
    assert torch.equal(torch.rand(3), expected)


def test_without_mirror_and_with_the_whole_image_the_top_stays_the_top() -> None:
    # Crops that cover the whole area have the photo's aspect ratio within 3/4 to 4/3, so all columns are kept
    # in order, and a mirrored image would correlate with the mirrored photo instead.
    whole = Augmentation(crop_scale=(0.95, 1.0), mirror=False)
    small = np.asarray(photo("chelsea").resize((48, 32))).mean(2).ravel()
    mirrored = np.asarray(photo("chelsea").resize((48, 32)))[:, ::-1].mean(2).ravel()
    for seed in range(8):
        found = augmented(seed, whole).mean(2).ravel()
        assert np.corrcoef(found, small)[0, 1] > np.corrcoef(found, mirrored)[0, 1]
    either = Augmentation(crop_scale=(0.95, 1.0))
    likelier = [
        np.corrcoef(augmented(seed, either).mean(2).ravel(), mirrored)[0, 1]
        > np.corrcoef(augmented(seed, either).mean(2).ravel(), small)[0, 1]
        for seed in range(16)
    ]
    assert 0 < sum(likelier) < 16


def test_colors_change_only_with_jitter() -> None:
    grey = photo("chelsea").convert("L").convert("RGB").point(lambda _: 128)
    plain = Augmenter(Augmentation(), PREPROCESSING, 32, 48)(grey, 1)
    jittered = Augmenter(Augmentation(color_jitter=0.4), PREPROCESSING, 32, 48)(grey, 1)
    assert (np.asarray(plain) == 128).all()
    assert (np.asarray(jittered) != 128).all()
